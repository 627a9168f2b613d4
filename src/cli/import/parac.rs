//! Run folders in the schema of Paracle, whose layout ours goes back to: `metadata.yaml` with `input.json`, `output.json`,
//! `steps/`, `artifacts/`, `logs.txt` and `trace.json` beside it.
//!
//! A folder becomes spans, which go the way of all that come from outside: names, prices, secrets. What the schema does not say
//! is not made up; where steps have no times of their own, they follow each other, and say so.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use runspan::conventions::names;
use runspan::model::otlp::{
    KeyValue, Resource, ResourceSpans, STATUS_ERROR, Scope, ScopeSpans, Span, SpanEvent, Status, TracesData, Value,
};
use runspan::model::run::ArtifactInfo;
use runspan::model::{RunId, RunKind, RunStatus, UnixNanos};
use runspan::store::files::yaml::from_yaml;
use serde_json::{Map, Value as Json, json};
use sha2::{Digest, Sha256};

/// The file that makes a folder one of these.
pub const METADATA: &str = "metadata.yaml";
/// Bytes of the metadata.
const MAX_METADATA: u64 = 1 << 20;
/// Bytes of one file of JSON; the pipeline cuts what is too long for a run.
const MAX_JSON: u64 = 64 << 20;
/// Steps, and files, of one run.
const MAX_ENTRIES: usize = 100_000;
/// What stands before keys that have no name of ours.
const PREFIX: &str = "paracle.";
/// On a step whose times are not known but by its place among the others.
const TIMES: &str = "paracle.times";

/// One run, as it is told.
pub struct Told {
    pub run: RunId,
    pub kind: RunKind,
    /// The run and its steps.
    pub request: TracesData,
    /// The spans of `trace.json`, as OTLP JSON.
    pub trace: Option<Vec<u8>>,
    /// Files to keep, with the names that they get.
    pub files: Vec<(String, PathBuf)>,
    /// What could not be taken, and why; the rest of the run is.
    pub left_out: Vec<String>,
}

impl Told {
    /// Tells the run of a file that was kept.
    pub fn add_artifact(&mut self, kept: &ArtifactInfo) {
        let Some(root) = self.root() else { return };
        let bytes = i64::try_from(kept.bytes).unwrap_or(i64::MAX);
        let mut attributes = vec![
            attribute("name", kept.name.as_str()),
            attribute("bytes", bytes),
            attribute("sha256", kept.sha256.as_str()),
        ];
        attributes.extend(kept.media_type.as_deref().map(|kind| attribute("media_type", kind)));
        attributes.extend(kept.content.map(|content| attribute("runspan.content", content.as_str())));
        let time_unix_nano = root.end_time_unix_nano;
        let name = names::EVENT_ARTIFACT.to_owned();
        root.events.push(SpanEvent { time_unix_nano, name, attributes, ..Default::default() });
    }

    fn root(&mut self) -> Option<&mut Span> {
        self.request.resource_spans.first_mut()?.scope_spans.first_mut()?.spans.first_mut()
    }
}

/// Reads the folder of a run.
pub fn read(folder: &Path, kind: RunKind) -> Result<Told, String> {
    let text = read_text(&folder.join(METADATA), MAX_METADATA)?;
    let metadata: Map<String, Json> = from_yaml(&text).map_err(|why| format!("{METADATA}: {why}"))?;
    let mut facts = Facts::new(metadata);
    let started = facts.time("started_at").ok_or_else(|| format!("{METADATA} has no started_at that is a time"))?;
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let external = facts.text("run_id").unwrap_or_else(|| name.to_owned());
    let run = external.parse().unwrap_or_else(|_| made_up(started, kind, &external));
    let mut root = Span {
        trace_id: run.as_trace_id().0.to_vec(),
        span_id: span_id(&run, ""),
        kind: 1,
        start_time_unix_nano: started.0,
        ..Span::default()
    };
    if external != run.to_string() {
        root.attributes.push(attribute(names::EXTERNAL_ID, external));
    }
    let (id_key, name_key) = match kind {
        RunKind::Agent => ("agent_id", "agent_name"),
        RunKind::Workflow => ("workflow_id", "workflow_name"),
    };
    let id =
        facts.text(id_key).or_else(|| facts.text(name_key)).ok_or_else(|| format!("{METADATA} has no {id_key}"))?;
    let (operation, key) = match kind {
        RunKind::Agent => ("invoke_agent", names::AGENT_NAME),
        RunKind::Workflow => ("invoke_workflow", names::WORKFLOW_NAME),
    };
    root.name = format!("{operation} {id}");
    root.attributes.extend([attribute(names::OPERATION, operation), attribute(key, id)]);
    for (name, key) in [("input", names::INPUT), ("output", names::OUTPUT)] {
        for name in [format!("{name}.json"), format!("{name}s.json")] {
            if let Some(json) = read_json(&folder.join(name))? {
                root.attributes.push(attribute(key, as_text(json)));
                break;
            }
        }
    }
    let (mut found, mut left_out) = (Vec::new(), Vec::new());
    gather(folder, "", &mut found, &mut left_out)?;
    let mut steps = steps(&found, &mut facts)?;
    facts.tell(&mut root, started, last_change(folder));
    let (trace, is_otlp) = trace(folder, &mut root, &run)?;
    let mut at = started.0;
    let mut spans = Vec::with_capacity(steps.len() + 1);
    for (step_id, step) in &mut steps {
        spans.push(step.span(step_id, &root, &run, &mut at));
    }
    let files = kept(found, is_otlp);
    left_out.sort();
    spans.insert(0, root);
    let scope = Scope { name: "paracle".to_owned(), ..Scope::default() };
    let resource = Resource { attributes: vec![attribute(names::RUN_ID, run.to_string())], ..Resource::default() };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..Default::default() }];
    let resource_spans = vec![ResourceSpans { resource: Some(resource), scope_spans, ..Default::default() }];
    Ok(Told { run, kind, request: TracesData { resource_spans }, trace, files, left_out })
}

/// What is known of a run or a step, by key; what is taken out of it is told under a name of ours.
struct Facts(Map<String, Json>);

impl Facts {
    fn new(mut given: Map<String, Json>) -> Self {
        given.retain(|_, value| !value.is_null());
        Self(given)
    }

    fn text(&mut self, key: &str) -> Option<String> {
        match self.0.get(key)? {
            Json::String(text) if !text.is_empty() => {
                let text = text.clone();
                self.0.remove(key);
                Some(text)
            }
            _ => None,
        }
    }

    fn number<T>(&mut self, keys: &[&str], read: impl Fn(&Json) -> Option<T>) -> Option<T> {
        let (key, number) = keys.iter().find_map(|key| Some((*key, read(self.0.get(*key)?)?)))?;
        self.0.remove(key);
        Some(number)
    }

    /// Reads a time; one without an offset, as Python writes it, is taken as UTC.
    fn time(&mut self, key: &str) -> Option<UnixNanos> {
        let text = self.0.get(key)?.as_str()?;
        let time = UnixNanos::parse(text).or_else(|| UnixNanos::parse(&format!("{text}Z")))?;
        self.0.remove(key);
        Some(time)
    }

    fn nanos(&mut self) -> Option<u64> {
        /// Seconds; what is said to take longer is no duration.
        const LONGEST: f64 = 10.0 * 365.0 * 86_400.0;
        let positive = |value: &Json| value.as_f64().filter(|number| (0.0..=LONGEST * 1e3).contains(number));
        let seconds = self.number(&["duration_seconds"], positive);
        let seconds = seconds.or_else(|| Some(self.number(&["duration_ms", "total_duration_ms"], positive)? / 1e3));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast to an integer saturates")]
        seconds.filter(|seconds| *seconds <= LONGEST).map(|seconds| (seconds * 1e9) as u64)
    }

    /// Tells all of it to a span that has its start.
    fn tell(&mut self, span: &mut Span, started: UnixNanos, otherwise: Option<UnixNanos>) {
        let duration = self.nanos();
        let ended =
            self.time("completed_at").or_else(|| duration.map(|nanos| UnixNanos(started.0.saturating_add(nanos))));
        let is_open = self.outcome(span, ended.is_some());
        // When it was last written to is as much as is known of one that has no end.
        let ended = ended.or(otherwise.filter(|_| is_open));
        span.end_time_unix_nano = ended.map_or(started.0, |ended| ended.0.max(started.0));
        self.usage(span);
        for (key, name) in [
            ("provider", names::PROVIDER),
            ("model", names::REQUEST_MODEL),
            ("session_id", names::CONVERSATION_ID),
            ("user_id", names::USER_ID),
            ("parent_run_id", names::PARENT_RUN_ID),
        ] {
            span.attributes.extend(self.text(key).map(|text| attribute(name, text)));
        }
        let temperature = self.number(&["temperature"], Json::as_f64);
        span.attributes.extend(temperature.map(|value| attribute("gen_ai.request.temperature", value)));
        if let Some(tags) = self.number(&["tags"], |tags| tags.is_array().then(|| tags.to_string())) {
            span.attributes.push(attribute(names::TAGS, tags));
        }
        for (key, value) in std::mem::take(&mut self.0) {
            span.attributes.push(KeyValue { key: format!("{PREFIX}{key}"), value: Some(plain(value).into()) });
        }
    }

    fn usage(&mut self, span: &mut Span) {
        let number = |value: &Json| value.as_i64().or_else(|| value.as_str()?.trim().parse().ok());
        let count = |value: &Json| number(value).filter(|count| *count >= 0);
        if let Some(Json::Object(tokens)) = self.0.get("tokens").cloned() {
            let mut tokens = Self::new(tokens);
            for (key, name) in [
                ("prompt", names::INPUT_TOKENS),
                ("completion", names::OUTPUT_TOKENS),
                ("total", names::TOTAL_TOKENS),
                ("cache_read", names::CACHE_READ_TOKENS),
                ("cache_write", names::CACHE_WRITE_TOKENS),
                ("reasoning", names::REASONING_TOKENS),
            ] {
                span.attributes.extend(tokens.number(&[key], count).map(|n| attribute(name, n)));
            }
            self.0.remove("tokens");
            // What is no count is told as it is.
            self.0.extend(tokens.0.into_iter().map(|(key, value)| (format!("tokens.{key}"), value)));
        }
        let total = self.number(&["tokens_used", "tokens_total"], count);
        span.attributes.extend(total.map(|total| attribute(names::TOTAL_TOKENS, total)));
        let cost = self
            .number(&["cost_usd", "cost_total_usd", "total_cost_usd"], |cost| cost.as_f64().filter(|usd| *usd >= 0.0));
        span.attributes.extend(cost.map(|usd| attribute(names::COST_USD, usd)));
    }

    /// Tells how it ended, and returns whether it had not.
    fn outcome(&mut self, span: &mut Span, has_ended: bool) -> bool {
        let word = self.text("status");
        let status = word.as_deref().and_then(|word| word.parse::<RunStatus>().ok());
        let strange = word.filter(|_| status.is_none());
        if let Some(word) = &strange {
            self.0.insert("status".to_owned(), word.as_str().into());
        }
        let error = match self.0.remove("error") {
            Some(Json::Object(error)) => {
                let mut error = Self::new(error);
                (error.text("type"), error.text("message"))
            }
            Some(Json::String(message)) => (None, Some(message)),
            _ => (None, None),
        };
        let message = self.text("error_message").or(error.1);
        // A word that nobody knows is no success.
        let unknown = strange.filter(|_| has_ended).map(|word| format!("its status was {word:?}, which is not known"));
        let message = message.or(unknown).unwrap_or_default();
        let (kind, status) = match status {
            // Nobody goes on with a copy.
            Some(RunStatus::Running | RunStatus::Waiting) => (Some("crashed"), Some(RunStatus::Crashed)),
            Some(RunStatus::Error) => (None, None),
            Some(RunStatus::Success) => return false,
            Some(other) => (Some(other.as_str()), Some(other)),
            None if message.is_empty() && has_ended => return false,
            None if message.is_empty() => (Some("crashed"), Some(RunStatus::Crashed)),
            None => (None, None),
        };
        let kind = error.0.or_else(|| kind.map(str::to_owned)).unwrap_or_else(|| names::ERROR_TYPE_OTHER.to_owned());
        span.attributes.push(attribute(names::ERROR_TYPE, kind));
        span.attributes.extend(status.map(|status| attribute(names::STEP_STATUS, status.as_str())));
        span.status = Some(Status { message, code: STATUS_ERROR });
        status == Some(RunStatus::Crashed)
    }

    /// Makes the span of a step. `at` is when the one before it ended.
    fn span(&mut self, step_id: &str, root: &Span, run: &RunId, at: &mut u64) -> Span {
        let own = self.time("started_at");
        let started = own.unwrap_or(UnixNanos(*at));
        let mut span = Span {
            trace_id: root.trace_id.clone(),
            span_id: span_id(run, step_id),
            parent_span_id: root.span_id.clone(),
            name: step_id.to_owned(),
            kind: 1,
            start_time_unix_nano: started.0,
            ..Span::default()
        };
        span.attributes.push(attribute("paracle.step_id", step_id));
        match self.text("agent_id").or_else(|| self.text("agent")) {
            Some(agent) => span
                .attributes
                .extend([attribute(names::OPERATION, "invoke_agent"), attribute(names::AGENT_NAME, agent)]),
            None => span.attributes.push(attribute(names::STEP_KIND, "task")),
        }
        for (keys, name) in [(["input", "inputs"], names::INPUT), (["output", "outputs"], names::OUTPUT)] {
            let value = keys.iter().find_map(|key| self.0.remove(*key));
            span.attributes.extend(value.map(|value| attribute(name, as_text(value))));
        }
        self.tell(&mut span, started, Some(started));
        if own.is_none() {
            span.attributes.push(attribute(TIMES, "by order"));
        }
        *at = span.end_time_unix_nano.max(*at);
        span
    }
}

/// Reads what the metadata and the files of `steps/` say of each step: in the order of the first, then by name.
fn steps(files: &[(String, PathBuf)], facts: &mut Facts) -> Result<Vec<(String, Facts)>, String> {
    let mut steps: Vec<(String, Facts)> = Vec::new();
    if let Some(Json::Array(listed)) = facts.0.get("steps") {
        let listed = listed.clone();
        facts.0.remove("steps");
        for (place, step) in listed.into_iter().enumerate() {
            let Json::Object(step) = step else { return Err(format!("{METADATA}: step {place} is no map")) };
            let mut step = Facts::new(step);
            let step_id = step.text("step_id").or_else(|| step.text("id")).unwrap_or_else(|| format!("step-{place}"));
            steps.push((step_id, step));
        }
    }
    let mut found: BTreeMap<String, Map<String, Json>> = BTreeMap::new();
    for (name, path) in files.iter().filter_map(|(name, path)| Some((name.strip_prefix("steps/")?, path))) {
        let (step_id, side) = match name.split_once('/') {
            Some((step_id, "input.json")) => (step_id, Some("input")),
            Some((step_id, "output.json")) => (step_id, Some("output")),
            Some(_) => continue,
            None => match name.strip_suffix(".json") {
                Some(step_id) => (step_id, None),
                None => continue,
            },
        };
        let Some(value) = read_json(path)? else { continue };
        let step = found.entry(step_id.to_owned()).or_default();
        match (side, value) {
            (None, Json::Object(facts)) => step.extend(facts),
            (side, value) => drop(step.insert(side.unwrap_or("output").to_owned(), value)),
        }
    }
    for (step_id, step) in &mut steps {
        for (key, value) in found.remove(step_id).into_iter().flatten() {
            step.0.entry(key).or_insert(value);
        }
    }
    steps.extend(found.into_iter().map(|(step_id, step)| (step_id, Facts::new(step))));
    Ok(steps)
}

/// Reads `trace.json`. Where it is OTLP, its spans become part of the run, below its root; they have one trace as a rule, and
/// then it is that of the run.
fn trace(folder: &Path, root: &mut Span, run: &RunId) -> Result<(Option<Vec<u8>>, bool), String> {
    let Some(mut trace) = read_json(&folder.join("trace.json"))? else { return Ok((None, false)) };
    let Some(resources) = trace.get_mut("resourceSpans").and_then(Json::as_array_mut) else { return Ok((None, false)) };
    let parent = runspan::model::hex(&root.span_id);
    let mut traces = std::collections::BTreeSet::new();
    for resource in resources {
        let of_run = json!({"key": names::RUN_ID, "value": {"stringValue": run.to_string()}});
        if let Some(resource) = resource.as_object_mut() {
            let told = resource.entry("resource").or_insert_with(|| json!({})).as_object_mut();
            let attributes = told.map(|told| told.entry("attributes").or_insert_with(|| json!([])));
            if let Some(Json::Array(attributes)) = attributes {
                attributes.push(of_run);
            }
        }
        let scopes = resource.get_mut("scopeSpans").and_then(Json::as_array_mut).into_iter().flatten();
        for span in scopes.filter_map(|scope| scope.get_mut("spans")?.as_array_mut()).flatten() {
            traces.extend(span.get("traceId").and_then(Json::as_str).map(str::to_owned));
            let has_parent = span.get("parentSpanId").and_then(Json::as_str).is_some_and(|id| !id.is_empty());
            if let (false, Some(span)) = (has_parent, span.as_object_mut()) {
                span.insert("parentSpanId".to_owned(), parent.as_str().into());
            }
        }
    }
    if let (Some(only), 1) = (traces.first().and_then(|id| id.parse::<runspan::model::TraceId>().ok()), traces.len()) {
        root.trace_id = only.0.to_vec();
    }
    Ok((Some(trace.to_string().into_bytes()), true))
}

/// Returns the files that are not read for what they say, with the names that they get: those of artifacts, the log, and
/// whatever else is there.
fn kept(mut files: Vec<(String, PathBuf)>, is_trace_read: bool) -> Vec<(String, PathBuf)> {
    files.retain(|(name, path)| {
        let is_read = match name.as_str() {
            METADATA | "input.json" | "inputs.json" | "output.json" | "outputs.json" => true,
            "trace.json" => is_trace_read,
            name => name.strip_prefix("steps/").is_some_and(|rest| {
                rest.split_once('/')
                    .map_or_else(|| rest.ends_with(".json"), |(_, file)| matches!(file, "input.json" | "output.json"))
            }),
        };
        !is_read && path.file_name().is_some()
    });
    for (name, _) in &mut files {
        let of_run = name.strip_prefix("artifacts/").unwrap_or(name);
        *name = of_run.replace("/artifacts/", "/").replace('/', "-");
    }
    files
}

fn not_plain(name: &str) -> String {
    format!("{name} is no plain file, and was left out")
}

/// Gathers all plain files below a folder, with their names within it; what is none is left out.
fn gather(
    dir: &Path,
    before: &str,
    files: &mut Vec<(String, PathBuf)>,
    left_out: &mut Vec<String>,
) -> Result<(), String> {
    /// Folders in folders.
    const DEEPEST: usize = 16;
    for entry in entries(dir, before, left_out)? {
        let (path, name) = (dir.join(&entry), format!("{before}{entry}"));
        let found = fs::symlink_metadata(&path).map_err(|error| format!("{name}: {error}"))?;
        if found.is_dir() && before.matches('/').count() < DEEPEST {
            gather(&path, &format!("{name}/"), files, left_out)?;
        } else if files.len() >= MAX_ENTRIES {
            return Err(format!("it has more than {MAX_ENTRIES} files"));
        } else if found.is_file() {
            files.push((name, path));
        } else {
            left_out.push(not_plain(&name));
        }
    }
    Ok(())
}

/// Returns the names in a folder that are text and not hidden, sorted; of one that is not there, none. Others are left out.
fn entries(dir: &Path, before: &str, left_out: &mut Vec<String>) -> Result<Vec<String>, String> {
    let told = |error: io::Error| format!("{}: {error}", dir.display());
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(told(error)),
    };
    let mut names = Vec::new();
    for entry in entries.take(MAX_ENTRIES) {
        match entry.map_err(told)?.file_name().into_string() {
            Ok(name) => names.extend(Some(name).filter(|name| !name.starts_with('.'))),
            Err(name) => {
                left_out.push(format!("{before}{} has a name that is no text, and was left out", name.display()))
            }
        }
    }
    names.sort();
    Ok(names)
}

/// Opens a plain file; links are not followed.
pub fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("no plain file")) }
}

fn read_text(path: &Path, limit: u64) -> Result<String, String> {
    let name = || path.file_name().unwrap_or_default().display();
    let mut text = String::new();
    let read = open(path).and_then(|file| file.take(limit + 1).read_to_string(&mut text));
    match read {
        Ok(read) if read as u64 > limit => Err(format!("{} is longer than {limit} bytes", name())),
        Ok(_) => Ok(text),
        Err(error) => Err(format!("{}: {error}", name())),
    }
}

fn read_json(path: &Path) -> Result<Option<Json>, String> {
    if !path.exists() {
        return Ok(None);
    }
    let text = read_text(path, MAX_JSON)?;
    let name = path.file_name().unwrap_or_default().display();
    serde_json::from_str(&text).map(Some).map_err(|error| format!("{name} is no JSON: {error}"))
}

/// When a run was last written to: all that is known of the end of one that has none.
fn last_change(folder: &Path) -> Option<UnixNanos> {
    let changed = fs::metadata(folder.join(METADATA)).ok()?.modified().ok()?;
    let since = changed.duration_since(std::time::UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok().map(UnixNanos)
}

fn attribute(key: &str, value: impl Into<Value>) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(value.into().into()) }
}

fn as_text(value: Json) -> String {
    if let Json::String(text) = value { text } else { value.to_string() }
}

fn plain(value: Json) -> Value {
    match value {
        Json::Bool(flag) => Value::Bool(flag),
        Json::Number(number) => match number.as_i64() {
            Some(number) => Value::Int(number),
            None => Value::Double(number.as_f64().unwrap_or_default()),
        },
        other => Value::String(as_text(other)),
    }
}

fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut digest = Sha256::new();
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize().into()
}

/// Makes the id of a run that has another kind of id: the same each time.
fn made_up(started: UnixNanos, kind: RunKind, external: &str) -> RunId {
    let hash = digest(&[kind.as_str().as_bytes(), b"/", external.as_bytes()]);
    RunId::from_parts(started.millis(), std::array::from_fn(|at| hash[at]))
}

/// Makes the id of a step's span: the same each time.
fn span_id(run: &RunId, step_id: &str) -> Vec<u8> {
    let hash = digest(&[b"paracle ", &run.0, step_id.as_bytes()]);
    let mut id = hash[..8].to_vec();
    // None is of zeros only.
    id[0] |= 1;
    id
}
