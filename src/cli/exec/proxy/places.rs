//! Where model calls go: which variable an SDK reads, and where it calls without.

use std::net::SocketAddr;
use std::path::Path;

use hyper::{Method, Uri};
use runspan::conventions::providers::HOSTS;
pub use runspan::replay::Format;

use super::dotenv::{Files, Found};

/// A service whose SDK takes its address from the environment.
struct Service {
    /// With what paths begin that are for each. Those that are set lead where they led; where any leads elsewhere than the
    /// default, the others stay as they are, since clients differ in which of them they read, and in what order.
    variables: &'static [(&'static str, &'static str)],
    /// Where calls go when none is; services without are only for those who set it.
    default: Option<&'static str>,
    /// Who is taken to answer at an address that nobody is known by.
    provider: &'static str,
    /// The variable that SDKs want a key in.
    key: &'static str,
    /// Where no variable is set, that one would lead elsewhere than without: clients do not agree on what belongs in it.
    is_for_replay: bool,
}

impl Service {
    /// Returns the variables that are set, with what they say.
    fn set(
        &self,
        given: &impl Fn(&str) -> Option<String>,
    ) -> impl Iterator<Item = ((&'static str, &'static str), String)> {
        self.variables.iter().filter_map(|&(variable, prefix)| Some(((variable, prefix), given(variable)?)))
    }

    /// Tells whether calls go where they go without any of its variables, whichever of them a client reads.
    fn is_as_by_default(&self, given: &impl Fn(&str) -> Option<String>) -> bool {
        self.set(given).all(|(_, text)| self.is_default(&text))
    }

    /// Tells whether that is the address that its clients have by themselves.
    fn is_default(&self, text: &str) -> bool {
        let same = |default: &str| {
            let (own, there) = (default.parse::<Uri>().ok()?, led(text)?);
            let path = |uri: &Uri| uri.path().trim_end_matches('/').to_owned();
            Some(origin(&own)? == origin(&there)? && path(&own) == path(&there))
        };
        self.default.and_then(same).unwrap_or(false)
    }

    /// Returns which of the variables stands in a file with another address than the default.
    fn in_files(&self, missing: &[&'static str], files: &Files) -> Option<Unled> {
        missing.iter().find_map(|variable| {
            let found = files.all(variable).find(|found| !self.is_default(&found.value))?.clone();
            let would_be_led = led(&found.value).is_some();
            Some(Unled::InFile { variable, found, would_be_led })
        })
    }

    /// Returns by what it is known that clients of Azure may read its variables, too.
    fn for_azure(&self, given: &impl Fn(&str) -> Option<String>, files: &Files) -> Option<Unled> {
        let is_there = |name: &&&str| given(name).is_some() || files.get(name).is_some();
        AZURE.iter().find(is_there).filter(|_| self.key == OPENAI_KEY).map(|name| Unled::Azure(name))
    }

    /// Returns that its clients want different things in its variable, where there may be one.
    fn disagreed(
        &self,
        missing: &[&'static str],
        given: &impl Fn(&str) -> Option<String>,
        files: &Files,
    ) -> Option<Unled> {
        let is_used = self.is_for_replay && (given(self.key).is_some() || files.get(self.key).is_some());
        missing.first().filter(|_| is_used).map(|variable| Unled::Disagreed(variable))
    }
}

const OPENAI: &str = "OPENAI_BASE_URL";
const OPENAI_KEY: &str = "OPENAI_API_KEY";
const AZURE_ENDPOINT: &str = "AZURE_OPENAI_ENDPOINT";

const SERVICES: &[Service] = &[
    Service {
        variables: &[(OPENAI, "/openai"), ("OPENAI_API_BASE", "/openai-base")],
        default: Some("https://api.openai.com/v1"),
        provider: "openai",
        key: OPENAI_KEY,
        is_for_replay: false,
    },
    Service {
        variables: &[("ANTHROPIC_BASE_URL", "/anthropic")],
        default: Some("https://api.anthropic.com"),
        provider: "anthropic",
        key: "ANTHROPIC_API_KEY",
        is_for_replay: false,
    },
    Service {
        variables: &[("GROQ_BASE_URL", "/groq")],
        default: Some("https://api.groq.com"),
        provider: "groq",
        key: "GROQ_API_KEY",
        is_for_replay: false,
    },
    // Together's client for Python wants `/v1` in it, and that for JavaScript does not.
    Service {
        variables: &[("TOGETHER_BASE_URL", "/together")],
        default: Some("https://api.together.xyz/v1"),
        provider: "together",
        key: "TOGETHER_API_KEY",
        is_for_replay: true,
    },
    Service {
        variables: &[(AZURE_ENDPOINT, "/azure")],
        default: None,
        provider: "azure.ai.openai",
        key: "AZURE_OPENAI_API_KEY",
        is_for_replay: false,
    },
];

/// One variable, and where it led before.
#[derive(Clone, Debug)]
pub struct Place {
    variable: &'static str,
    base: Uri,
    provider: &'static str,
    prefix: &'static str,
    /// The variable was not set.
    is_default: bool,
    /// What the variable said ends in a slash.
    ends_in_slash: bool,
}

impl Place {
    /// Returns the variable.
    pub fn variable(&self) -> &'static str {
        self.variable
    }

    /// Returns what the variable is to say, with the address of this port. Programs that join the rest to it themselves count
    /// on the slash that they have put there.
    pub fn led_to(&self, port: SocketAddr) -> String {
        format!("http://{port}{}{}", self.prefix, if self.ends_in_slash { "/" } else { "" })
    }

    /// Tells whether it is reached over TLS.
    pub fn is_tls(&self) -> bool {
        self.base.scheme_str() == Some("https")
    }

    fn host(&self) -> &str {
        self.base.host().unwrap_or_default()
    }

    /// Returns what of the path a client leaves out that wants it in the variable, as the AI SDK does (`@ai-sdk/anthropic` 3):
    /// without the variable it would not be missing. Where that was set, it holds what its client wants.
    fn version_left_out(&self, path: &str) -> &'static str {
        const OF_MODELS: &[&str] = &["messages", "models", "files", "skills"];
        let is_of = |path: &str| OF_MODELS.contains(&path.split('/').next().unwrap_or_default());
        let is_left_out = self.is_default && self.prefix == "/anthropic" && path.strip_prefix('/').is_some_and(is_of);
        if is_left_out { "/v1" } else { "" }
    }
}

/// Returns all places by an environment, where it is not asked for models at them. One whose variable holds no address is left as it is.
pub fn all(given: impl Fn(&str) -> Option<String>) -> Vec<Place> {
    let mut places = Vec::new();
    for service in SERVICES {
        let is_as_by_default = service.is_as_by_default(&given);
        for &(variable, prefix) in service.variables {
            let own = given(variable);
            let is_default = own.is_none();
            let Some(text) = own.or_else(|| service.default.filter(|_| is_as_by_default).map(str::to_owned)) else {
                continue;
            };
            let Some(base) = led(&text) else { continue };
            let provider = provider_at(base.host().unwrap_or_default()).unwrap_or(service.provider);
            let ends_in_slash = text.ends_with('/');
            places.push(Place { variable, base, provider, prefix, is_default, ends_in_slash });
        }
    }
    places
}

/// Variables of which each says that Azure's clients are used.
const AZURE: &[&str] = &[AZURE_ENDPOINT, "AZURE_OPENAI_API_KEY", "OPENAI_API_VERSION"];

/// Why variables of a service are left as they are, which would lead to places.
#[derive(Debug)]
pub enum Unled {
    /// A variable stands in a file that the command may read, and there it would not win any more.
    InFile { variable: &'static str, found: Found, would_be_led: bool },
    /// Clients for Azure take the variables of OpenAI's for their own: that of JavaScript before its endpoint (6.49), and
    /// LangChain's refuses to begin. By which variable it is known that there may be one.
    Azure(&'static str),
    /// There is a key, and clients do not agree on what belongs in the variable.
    Disagreed(&'static str),
    /// Another variable of the service leads elsewhere than without.
    Beside { variable: &'static str, other: &'static str },
}

impl Unled {
    /// Returns the variable that is left as it is.
    pub fn variable(&self) -> &'static str {
        match self {
            Self::InFile { variable, .. } | Self::Disagreed(variable) | Self::Beside { variable, .. } => variable,
            Self::Azure(_) => OPENAI,
        }
    }

    /// Tells whether it is worth a word where nobody has asked for all calls: most programs read the other variable.
    pub fn is_told(&self) -> bool {
        !matches!(self, Self::Beside { .. })
    }

    /// Says which calls are not seen, and what would make them be. `here`: what files are named by.
    pub fn said(&self, here: &Path) -> String {
        let variable = self.variable();
        match self {
            Self::InFile { found, would_be_led, .. } => {
                let file = found.file.strip_prefix(here).unwrap_or(&found.file).display();
                let what =
                    if *would_be_led { "export it to have these calls recorded" } else { "calls by it are not seen" };
                format!("{variable} stands in {file} and is left as it is: {what}")
            }
            Self::Azure(known_by) => format!(
                "{variable} is left as it is, for clients of Azure ({known_by}) read it too: calls of OpenAI's own are not seen"
            ),
            Self::Disagreed(_) => format!(
                "{variable} is left as it is, for Together's clients want different things in it: set it to have their calls \
                 recorded"
            ),
            Self::Beside { other, .. } => format!(
                "{variable} is left as it is, for {other} is set: calls of clients that read the first alone are not seen"
            ),
        }
    }
}

/// Returns the places of a command that asks its models itself, and which services are left out that would have one. There
/// only what is sure to lead where it led without is set.
pub fn of_command(given: impl Fn(&str) -> Option<String>, files: &Files) -> (Vec<Place>, Vec<Unled>) {
    let mut places = all(&given);
    let mut unled = Vec::new();
    for service in SERVICES {
        let missing: Vec<_> =
            service.variables.iter().map(|(name, _)| *name).filter(|name| given(name).is_none()).collect();
        if !service.is_as_by_default(&given) {
            let other = service.set(&given).next().map(|((other, _), _)| other);
            unled.extend(missing.first().zip(other).map(|(variable, other)| Unled::Beside { variable, other }));
            continue;
        }
        let is_said = missing.iter().any(|name| files.get(name).is_some());
        let why = service
            .in_files(&missing, files)
            .or_else(|| service.for_azure(&given, files))
            .or_else(|| service.disagreed(&missing, &given, files).filter(|_| !is_said));
        let is_missing = |place: &Place| missing.contains(&place.variable);
        if why.is_some() || (service.is_for_replay && !is_said) {
            places.retain(|place| !is_missing(place));
        }
        for place in places.iter_mut().filter(|place| is_missing(place)) {
            if let Some(found) = files.get(place.variable) {
                // The default itself stands there, as its clients want it.
                (place.is_default, place.ends_in_slash) = (false, found.value.ends_with('/'));
            }
        }
        unled.extend(why.filter(|why| missing.contains(&why.variable())));
    }
    let is_azure_alone = places.iter().any(|place| place.variable == AZURE_ENDPOINT)
        && given(OPENAI_KEY).is_none()
        && files.get(OPENAI_KEY).is_none();
    // Nobody calls OpenAI's own then.
    unled.retain(|unled| !(is_azure_alone && matches!(unled, Unled::Azure(_))));
    (places, unled)
}

/// Returns the places of a command to which recorded answers are given, all that can be led here, and what is left as it is.
/// What stands in a file alone counts where there is nothing to be led by else.
pub fn of_replay(given: impl Fn(&str) -> Option<String>, files: &Files) -> (Vec<Place>, Vec<Unled>) {
    let has_default = |name: &str| {
        SERVICES
            .iter()
            .any(|service| service.default.is_some() && service.variables.iter().any(|(own, _)| *own == name))
    };
    let in_file = |name: &str| files.get(name).filter(|_| !has_default(name)).map(|found| found.value.clone());
    let mut places = all(|name| given(name).or_else(|| in_file(name)));
    let mut unled = Vec::new();
    for service in SERVICES {
        let is_set = |name: &str| given(name).is_some() || files.get(name).is_some();
        if service.variables.iter().any(|(name, _)| is_set(name)) {
            continue;
        }
        if let Some(why) = service.for_azure(&given, files) {
            places.retain(|place| service.variables.iter().all(|(name, _)| *name != place.variable));
            unled.extend(is_set(service.key).then_some(why));
        }
    }
    (places, unled)
}

/// Returns the places of a command that is answered from a recording and asks its models where that is left: those that it has
/// when it asks itself, and what stands in a file once.
pub fn of_live_replay(given: impl Fn(&str) -> Option<String>, files: &Files) -> (Vec<Place>, Vec<Unled>) {
    let in_file = |name: &str| {
        let mut values = files.all(name).map(|found| found.value.clone());
        let first = values.next()?;
        values.all(|value| value == first).then_some(first)
    };
    of_command(|name| given(name).or_else(|| in_file(name)), files)
}

/// Reads the address that a variable leads by, unless it is left alone.
fn led(text: &str) -> Option<Uri> {
    address(text).filter(|base| why_left_alone(base).is_none())
}

/// Reads the address of a service.
fn address(text: &str) -> Option<Uri> {
    let base = text.parse::<Uri>().ok()?;
    (matches!(base.scheme_str(), Some("http" | "https")) && base.host().is_some()).then_some(base)
}

/// Tells why calls by an address cannot be passed on, where it is one.
fn why_left_alone(base: &Uri) -> Option<&'static str> {
    if base.query().is_some() {
        return Some("it has a query, which each client puts somewhere else");
    }
    let has_credentials = base.authority().is_some_and(|authority| authority.as_str().contains('@'));
    has_credentials.then_some("it has credentials, which are the client's to make a header of")
}

/// Returns the variables with an address by which calls are not passed on, and why.
pub fn left_alone(given: impl Fn(&str) -> Option<String>) -> impl Iterator<Item = (&'static str, &'static str)> {
    let set = SERVICES.iter().flat_map(move |service| service.set(&given).collect::<Vec<_>>());
    set.filter_map(|((variable, _), text)| Some((variable, why_left_alone(&address(&text)?)?)))
}

/// Returns the variables for keys that are not set, of services that are.
pub fn keys_missing<'a>(
    places: &'a [Place],
    given: impl Fn(&str) -> Option<String> + 'a,
) -> impl Iterator<Item = &'static str> + 'a {
    let is_place = |(variable, _): &(&str, &str)| places.iter().any(|place| place.variable == *variable);
    let is_used = move |service: &&Service| service.variables.iter().any(is_place);
    SERVICES.iter().filter(is_used).map(|service| service.key).filter(move |key| given(key).is_none())
}

/// Tells whether a host is a name, or one below it.
fn is_below(host: &str, name: &str) -> bool {
    let before = host.strip_suffix(name).filter(|_| !name.is_empty());
    before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

fn provider_at(host: &str) -> Option<&'static str> {
    HOSTS.iter().find(|(name, _)| is_below(host, name)).map(|(_, provider)| *provider)
}

/// Returns those that can be reached directly: where the program has to go through a proxy of its network, this process
/// had to as well.
pub fn reachable(places: Vec<Place>, given: impl Fn(&str) -> Option<String>) -> Vec<Place> {
    let either = |name: &str| given(name).or_else(|| given(&name.to_ascii_uppercase()));
    let any = either("all_proxy");
    let exceptions = either("no_proxy").unwrap_or_default();
    let is_local = |host: &str| {
        let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    };
    let is_excepted = |host: &str| {
        let mut names = exceptions.split(',').map(|name| name.trim().trim_start_matches('.'));
        is_local(host) || names.any(|name| name == "*" || is_below(host, name))
    };
    let needs_proxy = |place: &Place| {
        let own = either(if place.is_tls() { "https_proxy" } else { "http_proxy" });
        own.or_else(|| any.clone()).is_some() && !is_excepted(place.host())
    };
    places.into_iter().filter(|place| !needs_proxy(place)).collect()
}

/// What a part of a server is, by what stands behind the prefix of its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// What is below the address.
    Base,
    /// All of the server: an answer has sent the program there.
    Server,
    /// The same over TLS, where the address has none.
    Secure,
}

impl Part {
    const BEHIND: &[(&str, Self)] = &[("-server", Self::Server), ("-secure", Self::Secure)];

    /// Reads what stands behind a prefix.
    fn of(behind: &str) -> Option<(Self, &str)> {
        let whole = |rest: &str| rest.is_empty() || rest.starts_with('/');
        if whole(behind) {
            return Some((Self::Base, behind));
        }
        let part = Self::BEHIND.iter().find_map(|(word, part)| Some((*part, behind.strip_prefix(word)?)));
        part.filter(|(_, rest)| whole(rest))
    }
}

/// Returns scheme, host and port.
fn origin(uri: &Uri) -> Option<(&str, String, u16)> {
    let scheme = uri.scheme_str()?;
    let port = uri.port_u16().or(match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    })?;
    Some((scheme, uri.host()?.to_ascii_lowercase(), port))
}

/// Returns who is at an address, with the port where one is said.
pub fn name_of(uri: &Uri) -> Option<String> {
    let host = uri.host()?;
    Some(uri.port_u16().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

/// Returns a path with the steps done that go nowhere or up, as clients do them before they ask.
fn without_dots(path: &str) -> String {
    let mut left: Vec<&str> = Vec::new();
    let mut is_folder = false;
    for part in path.split('/').skip(1) {
        let plain = part.replace("%2e", ".").replace("%2E", ".");
        is_folder = matches!(plain.as_str(), "." | "..");
        match plain.as_str() {
            "." => {}
            ".." => drop(left.pop()),
            _ => left.push(part),
        }
    }
    let end = if is_folder && !left.is_empty() { "/" } else { "" };
    format!("/{}{end}", left.join("/"))
}

/// Where one request goes.
pub struct Route<'a> {
    place: &'a Place,
    part: Part,
    rest: String,
    /// `None`: it passes and is not recorded.
    pub format: Option<Format>,
}

impl Route<'_> {
    /// Tells whether errors are expected in Anthropic's form; all others have OpenAI's.
    pub fn is_anthropic(&self) -> bool {
        self.format == Some(Format::Messages) || self.place.prefix == "/anthropic"
    }

    /// Returns the address.
    pub fn uri(&self) -> Option<Uri> {
        let base = &self.place.base;
        let of_server = |scheme: &str| format!("{scheme}://{}{}", base.authority()?, self.rest).parse().ok();
        match self.part {
            Part::Base => super::joined(base, &self.rest),
            Part::Server => of_server(base.scheme_str()?),
            Part::Secure => of_server("https"),
        }
    }

    /// Returns where an answer sends the program, by way of this port where that is the same server: its key would not go
    /// along to another, and the call would not be seen. `None`: it stays as it is.
    pub fn sent_on(&self, location: &str, port: SocketAddr) -> Option<String> {
        let target = self.target(location)?;
        let path = target.path_and_query().map_or("/", |path| path.as_str());
        let base = &self.place.base;
        let place = origin(base)?;
        if target.authority()?.as_str().contains('@') {
            return None;
        }
        let part = match origin(&target)? {
            there if there == place => Part::Server,
            ("https", name, 443) if place == ("http", name.clone(), 80) => Part::Secure,
            // Without a scheme it would be asked for plainly, as this port is.
            _ => return location.starts_with("//").then(|| target.to_string()),
        };
        if path.contains('\\') {
            // Some clients take that for a slash, and would go up by it: to another service, at this port.
            return Some(target.to_string());
        }
        let below = path.strip_prefix(base.path().trim_end_matches('/')).filter(|_| part == Part::Server);
        let below = below.filter(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
        let below = below.filter(|rest| self.place.version_left_out(rest).is_empty());
        let word = Part::BEHIND.iter().find(|(_, behind)| *behind == part).map_or("", |(word, _)| word);
        let rest = below.map_or_else(|| format!("{word}{path}"), str::to_owned);
        Some(format!("http://{port}{}{rest}", self.place.prefix))
    }

    /// Tells whether a program that goes where an answer sends it asks at this port.
    pub fn leads_here(&self, location: &str, port: SocketAddr) -> bool {
        self.sent_on(location, port).is_some_and(|there| there.starts_with(&format!("http://{port}/")))
    }

    /// Returns the address that an answer names, by that which it is the answer to: RFC 3986, section 5.2.
    pub fn target(&self, location: &str) -> Option<Uri> {
        let here = self.uri()?;
        let (scheme, authority) = (here.scheme_str()?, here.authority()?);
        let location = location.split('#').next().unwrap_or_default();
        let has_scheme = location.split(['/', '?']).next().is_some_and(|first| first.contains(':'));
        let there = match location {
            _ if has_scheme => location.to_owned(),
            _ if location.starts_with("//") => format!("{scheme}:{location}"),
            _ if location.starts_with('/') => format!("{scheme}://{authority}{location}"),
            "" => here.to_string(),
            _ if location.starts_with('?') => format!("{scheme}://{authority}{}{location}", here.path()),
            _ => {
                let folder = here.path().rsplit_once('/').map_or("", |(folder, _)| folder);
                format!("{scheme}://{authority}{folder}/{location}")
            }
        };
        let there: Uri = there.parse().ok()?;
        let query = there.query().map(|query| format!("?{query}")).unwrap_or_default();
        let path = without_dots(there.path());
        format!("{}://{}{path}{query}", there.scheme_str()?, there.authority()?).parse().ok()
    }

    /// Returns who is asked, with the port where one is said.
    pub fn name(&self) -> String {
        name_of(&self.place.base).unwrap_or_default()
    }

    /// Returns the host.
    pub fn host(&self) -> &str {
        self.place.host()
    }

    /// Returns what stands behind the path of the address.
    pub fn query(&self) -> &str {
        self.rest.split_once('?').map_or("", |(_, query)| query)
    }

    /// Returns the port, unless it is that of the scheme.
    pub fn port(&self) -> Option<u16> {
        self.place.base.port_u16()
    }

    /// Returns who serves the model.
    pub fn provider(&self) -> &'static str {
        self.place.provider
    }
}

/// Finds where a request goes.
pub fn route<'a>(places: &'a [Place], method: &Method, uri: &Uri) -> Option<Route<'a>> {
    let (place, (part, rest)) = places.iter().find_map(|place| {
        let behind = uri.path().strip_prefix(place.prefix)?;
        Some((place, Part::of(behind)?))
    })?;
    let is_post = method == Method::POST;
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let version = if part == Part::Base { place.version_left_out(rest) } else { "" };
    Some(Route { place, part, rest: format!("{version}{rest}{query}"), format: format_of(rest).filter(|_| is_post) })
}

fn format_of(path: &str) -> Option<Format> {
    const FORMATS: &[(&str, Format)] = &[
        ("/chat/completions", Format::Chat),
        ("/responses", Format::Responses),
        ("/embeddings", Format::Embeddings),
        ("/messages", Format::Messages),
    ];
    // Servers take a slash behind it for the same.
    let path = path.strip_suffix('/').unwrap_or(path);
    // A list of messages of an assistant's thread is no call of a model.
    let is_thread = path.contains("/threads/");
    FORMATS.iter().find(|(end, _)| path.ends_with(end) && !is_thread).map(|(_, format)| *format)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    fn shown(places: &[Place]) -> Vec<String> {
        places.iter().map(|place| format!("{} {}", place.variable, place.base)).collect()
    }

    #[test]
    fn calls_go_where_they_went_before() {
        let given = [("OPENAI_BASE_URL", "http://127.0.0.1:1234/v1/"), ("ANTHROPIC_BASE_URL", "no address")];
        let places = all(lookup(&given));
        assert_eq!(
            shown(&places),
            [
                "OPENAI_BASE_URL http://127.0.0.1:1234/v1/",
                "GROQ_BASE_URL https://api.groq.com/",
                "TOGETHER_BASE_URL https://api.together.xyz/v1",
            ]
        );
        let target = |method: Method, path: &str| {
            let route = route(&places, &method, &path.parse().unwrap())?;
            Some(format!("{} {:?}", route.uri()?, route.format))
        };
        let target = |method, path| target(method, path).unwrap_or_default();
        assert_eq!(
            target(Method::POST, "/openai/chat/completions?a=b"),
            "http://127.0.0.1:1234/v1/chat/completions?a=b Some(Chat)"
        );
        assert_eq!(
            target(Method::POST, "/openai/chat/completions/"),
            "http://127.0.0.1:1234/v1/chat/completions/ Some(Chat)"
        );
        assert_eq!(target(Method::GET, "/openai/responses/r1"), "http://127.0.0.1:1234/v1/responses/r1 None");
        assert_eq!(
            target(Method::POST, "/openai/threads/t/messages"),
            "http://127.0.0.1:1234/v1/threads/t/messages None"
        );
        assert_eq!(
            target(Method::POST, "/groq/openai/v1/chat/completions"),
            "https://api.groq.com/openai/v1/chat/completions Some(Chat)"
        );
        assert_eq!(target(Method::POST, "/openaix/chat/completions"), "");
        assert_eq!(target(Method::POST, "/openai-base/chat/completions"), "");
        assert_eq!(target(Method::POST, "/v1/chat/completions"), "");
    }

    #[test]
    fn where_an_answer_sends_a_program_is_found_by_way_of_this_port() {
        let sent = |base: &str, location: &str| {
            let places = all(lookup(&[("OPENAI_BASE_URL", base)]));
            let asked = "/openai/chat/completions".parse().unwrap();
            let location =
                route(&places, &Method::POST, &asked).unwrap().sent_on(location, ([127, 0, 0, 1], 5).into())?;
            let Some(path) = location.strip_prefix("http://127.0.0.1:5") else { return Some(location) };
            let there = path.parse().unwrap();
            let route = route(&places, &Method::POST, &there).unwrap();
            Some(format!("{path} {} {:?}", route.uri().unwrap(), route.format))
        };
        let of = |location: &str| sent("http://a:8000/v1", location).unwrap_or_default();
        let below = "/openai/chat/completions/?a=b http://a:8000/v1/chat/completions/?a=b Some(Chat)";
        assert_eq!(of("/v1/chat/completions/?a=b"), below);
        assert_eq!(of("http://A:8000/v1/chat/completions/?a=b"), below);
        assert_eq!(of("//a:8000/v1/chat/completions/?a=b"), below);
        let beside = "/openai-server/v2/chat/completions http://a:8000/v2/chat/completions Some(Chat)";
        assert_eq!(of("/v2/chat/completions"), beside);
        assert_eq!(of("/v10"), "/openai-server/v10 http://a:8000/v10 None");
        // What leads to another server stays.
        assert_eq!(of("http://b:8000/v1/chat/completions"), "");
        assert_eq!(of("https://a:8000/v1/chat/completions"), "");
        assert_eq!(of("//b/v1"), "http://b/v1");
        assert_eq!(of("http://me:k@a:8000/v1/chat/completions"), "");
        assert_eq!(of("mailto:a@b"), "");
        // What says only what is beside the request is found by the address that it went to.
        assert_eq!(of("completions/?a=b"), below);
        assert_eq!(of("./completions/?a=b#c"), below);
        assert_eq!(of("../../v2/chat/completions"), beside);
        assert_eq!(of("?a=b"), "/openai/chat/completions?a=b http://a:8000/v1/chat/completions?a=b Some(Chat)");
        // It leads to no other service.
        assert_eq!(of("/v1/../v2/chat/completions"), beside);
        let above = "/openai-server/anthropic/x http://a:8000/anthropic/x None";
        for way in ["/v1/../anthropic/x", "../../../../anthropic/x", "/v1/%2E%2e/anthropic/x", "/v1/.%2e/./anthropic/x"]
        {
            assert_eq!(of(way), above, "{way}");
        }
        assert_eq!(of("/v1/x/%2e./"), "/openai/ http://a:8000/v1/ None");
        let back = of("/v1/..\\..\\anthropic/x");
        assert!(back.is_empty() || back.starts_with("http://a:8000/"), "{back}");
        // One that is the server's own without a version gets none.
        let places = all(|_| None);
        let here = route(&places, &Method::POST, &"/anthropic/messages".parse().unwrap()).unwrap();
        let there = here.sent_on("/messages", ([127, 0, 0, 1], 5).into());
        assert_eq!(there.as_deref(), Some("http://127.0.0.1:5/anthropic-server/messages"));
        // A key goes along from a plain port to the one for TLS.
        let secure = "/openai-secure/v1/chat/completions https://a/v1/chat/completions Some(Chat)";
        assert_eq!(sent("http://a/v1", "https://a/v1/chat/completions").as_deref(), Some(secure));
        assert_eq!(sent("https://a/v1", "http://a/v1/chat/completions"), None);
    }

    #[test]
    fn a_slash_at_the_end_of_an_address_stays() {
        let led = |base: &str| {
            let places = all(lookup(&[("OPENAI_BASE_URL", base)]));
            let uri = format!("{}chat/completions", places[0].led_to(([127, 0, 0, 1], 5).into())).parse().unwrap();
            route(&places, &Method::POST, &uri).and_then(|route| route.uri()).map(|uri| uri.to_string())
        };
        assert_eq!(led("http://a/v1/").as_deref(), Some("http://a/v1/chat/completions"));
        assert_eq!(led("http://a/").as_deref(), Some("http://a/chat/completions"));
        assert_eq!(led("http://a/v1"), None);
    }

    #[test]
    fn a_version_that_a_client_wants_in_the_variable_is_not_missing_without() {
        let target = |given: &[(&str, &str)], path: &str| {
            let places = all(lookup(given));
            let route = route(&places, &Method::POST, &path.parse().unwrap()).unwrap();
            format!("{} {:?}", route.uri().unwrap(), route.format)
        };
        let at = |path: &str| target(&[], path);
        assert_eq!(at("/anthropic/messages?a=b"), "https://api.anthropic.com/v1/messages?a=b Some(Messages)");
        assert_eq!(at("/anthropic/v1/messages"), "https://api.anthropic.com/v1/messages Some(Messages)");
        assert_eq!(at("/anthropic/messages/count_tokens"), "https://api.anthropic.com/v1/messages/count_tokens None");
        assert_eq!(at("/anthropic/api/messages"), "https://api.anthropic.com/api/messages Some(Messages)");
        let given = [("ANTHROPIC_BASE_URL", "http://127.0.0.1:5/v1")];
        assert_eq!(target(&given, "/anthropic/messages"), "http://127.0.0.1:5/v1/messages Some(Messages)");
        let given = [("ANTHROPIC_BASE_URL", "http://127.0.0.1:5")];
        assert_eq!(target(&given, "/anthropic/messages"), "http://127.0.0.1:5/messages Some(Messages)");
    }

    /// LangChain and clients of OpenAI's before 1.0 read `OPENAI_API_BASE`, LiteLLM 1.110 reads it last, and OpenAI's clients
    /// read `OPENAI_BASE_URL` alone.
    #[test]
    fn each_of_two_variables_leads_where_it_led() {
        let of = |given: &[(&str, &str)]| {
            let places = all(lookup(given));
            let places = places.iter().filter(|place| place.variable.starts_with("OPENAI"));
            places.map(|place| format!("{} {} {}", place.variable, place.prefix, place.base)).collect::<Vec<_>>()
        };
        assert_eq!(of(&[("OPENAI_API_BASE", "http://b/v1")]), ["OPENAI_API_BASE /openai-base http://b/v1"]);
        assert_eq!(of(&[("OPENAI_BASE_URL", "http://a/v1")]), ["OPENAI_BASE_URL /openai http://a/v1"]);
        assert_eq!(
            of(&[("OPENAI_BASE_URL", "http://a/v1"), ("OPENAI_API_BASE", "http://b/v1")]),
            ["OPENAI_BASE_URL /openai http://a/v1", "OPENAI_API_BASE /openai-base http://b/v1"]
        );
        let given = [("OPENAI_BASE_URL", "http://me:secret@a/v1"), ("OPENAI_API_BASE", "http://b/v1")];
        assert_eq!(of(&given), ["OPENAI_API_BASE /openai-base http://b/v1"]);
    }

    /// What is left as it is for a command, by an environment and the text of its `.env`.
    fn left(given: &[(&str, &str)], file: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".env"), file).unwrap();
        let files = Files::of(dir.path(), &[], lookup(given));
        let (places, unled) = of_command(lookup(given), &files);
        let led: Vec<_> = places.iter().map(|place| place.variable).collect();
        let unled: Vec<_> = unled
            .iter()
            .map(|unled| match unled {
                Unled::InFile { variable, .. } => format!("{variable} in the file"),
                Unled::Azure(name) => format!("for {name}"),
                Unled::Disagreed(name) => format!("{name} by its clients"),
                Unled::Beside { variable, other } => format!("{variable} beside {other}"),
            })
            .collect();
        format!("{} | {}", led.join(" "), unled.join(" "))
    }

    /// python-dotenv 1.2, pydantic-settings 2.16 and `node --env-file` (20): none of them replaces what is set.
    #[test]
    fn what_stands_in_a_file_is_left_to_it() {
        assert_eq!(left(&[], ""), "OPENAI_BASE_URL OPENAI_API_BASE ANTHROPIC_BASE_URL GROQ_BASE_URL | ");
        let file = "OPENAI_BASE_URL=http://127.0.0.1:1234/v1";
        assert_eq!(left(&[], file), "ANTHROPIC_BASE_URL GROQ_BASE_URL | OPENAI_BASE_URL in the file");
        let given = [("OPENAI_BASE_URL", "http://127.0.0.1:5/v1")];
        let led = "OPENAI_BASE_URL ANTHROPIC_BASE_URL GROQ_BASE_URL";
        assert_eq!(left(&given, file), format!("{led} | OPENAI_API_BASE beside OPENAI_BASE_URL"));
        let file = "AZURE_OPENAI_ENDPOINT=https://mine\nTOGETHER_BASE_URL=http://127.0.0.1:5";
        assert_eq!(
            left(&given, file),
            format!(
                "{led} | OPENAI_API_BASE beside OPENAI_BASE_URL TOGETHER_BASE_URL in the file AZURE_OPENAI_ENDPOINT in the file"
            )
        );
    }

    /// Many a template of a `.env` has it.
    #[test]
    fn the_address_that_clients_have_by_themselves_changes_nothing() {
        let led = "OPENAI_BASE_URL OPENAI_API_BASE ANTHROPIC_BASE_URL GROQ_BASE_URL";
        for address in ["https://api.openai.com/v1", "https://API.openai.com:443/v1/"] {
            let file = format!("OPENAI_BASE_URL={address}");
            assert_eq!(left(&[], &file), format!("{led} | "));
            assert_eq!(left(&[("OPENAI_API_BASE", address)], ""), format!("{led} | "));
            assert_eq!(left(&[("OPENAI_BASE_URL", address)], &file), format!("{led} | "));
            let file = format!("{file}\nOPENAI_API_BASE=http://127.0.0.1:1234/v1");
            assert_eq!(left(&[], &file), "ANTHROPIC_BASE_URL GROQ_BASE_URL | OPENAI_API_BASE in the file");
            let given = [("OPENAI_BASE_URL", address)];
            let led = "OPENAI_BASE_URL ANTHROPIC_BASE_URL GROQ_BASE_URL";
            assert_eq!(left(&given, &file), format!("{led} | OPENAI_API_BASE in the file"));
        }
        for address in ["http://api.openai.com/v1", "https://api.openai.com/v2", "https://me:k@api.openai.com/v1", "$X"]
        {
            let told = left(&[("OPENAI_API_BASE", address)], "");
            assert!(told.ends_with("| OPENAI_BASE_URL beside OPENAI_API_BASE"), "{told}");
        }
        let file = "TOGETHER_API_KEY=k\nTOGETHER_BASE_URL=https://api.together.xyz/v1";
        assert_eq!(left(&[], file), format!("{led} TOGETHER_BASE_URL | "));
        // As it stands there, with the slash that a program counts on.
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".env"), "OPENAI_BASE_URL=https://api.openai.com/v1/").unwrap();
        let (places, _) = of_command(lookup(&[]), &Files::of(dir.path(), &[], |_| None));
        assert_eq!(places[0].led_to(([127, 0, 0, 1], 5).into()), "http://127.0.0.1:5/openai/");
    }

    #[test]
    fn what_is_said_of_a_variable_in_a_file_is_what_would_be() {
        let said = |value: &str| {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join(".env"), format!("GROQ_BASE_URL={value}")).unwrap();
            let (_, unled) = of_command(lookup(&[]), &Files::of(dir.path(), &[], |_| None));
            unled[0].said(dir.path())
        };
        let exported = "GROQ_BASE_URL stands in .env and is left as it is: export it to have these calls recorded";
        assert_eq!(said("http://127.0.0.1:5"), exported);
        let unseen = "GROQ_BASE_URL stands in .env and is left as it is: calls by it are not seen";
        for value in ["http://127.0.0.1:5/?key=k", "https://me:k@gateway", "gateway:5"] {
            assert_eq!(said(value), unseen, "{value}");
        }
    }

    /// The places of a command that is run again, and what is left as it is, where it is answered from the recording alone
    /// and where its models are asked, too.
    fn led_again(given: &[(&str, &str)], file: &str) -> [String; 2] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".env"), file).unwrap();
        let files = Files::of(dir.path(), &[], lookup(given));
        [of_replay(lookup(given), &files), of_live_replay(lookup(given), &files)].map(|(places, unled)| {
            let unled: Vec<_> = unled.iter().map(Unled::variable).collect();
            format!("{} | {}", shown(&places).join(" "), unled.join(" "))
        })
    }

    #[test]
    fn a_command_that_is_run_again_is_led_where_it_was() {
        let others = "ANTHROPIC_BASE_URL https://api.anthropic.com/ GROQ_BASE_URL https://api.groq.com/";
        let together = "TOGETHER_BASE_URL https://api.together.xyz/v1";
        let openai = "OPENAI_BASE_URL https://api.openai.com/v1 OPENAI_API_BASE https://api.openai.com/v1";
        let [told, live] = led_again(&[], "");
        assert_eq!(told, format!("{openai} {others} {together} | "));
        assert_eq!(live, format!("{openai} {others} | "));
        // A model that is asked is the one in the file.
        let [told, live] = led_again(&[], "OPENAI_BASE_URL=http://127.0.0.1:5/v1");
        assert_eq!(told, format!("{openai} {others} {together} | "));
        assert_eq!(live, format!("OPENAI_BASE_URL http://127.0.0.1:5/v1 {others} | OPENAI_API_BASE"));
        let [_, live] = led_again(&[("X", "1")], "OPENAI_BASE_URL=http://a/v1\nopenai_base_url=http://b/v1");
        assert_eq!(live, format!("{others} | OPENAI_BASE_URL"));
        // The client for Azure refuses to start where it finds OpenAI's variable.
        let azure = "AZURE_OPENAI_ENDPOINT https://mine.openai.azure.com/";
        for (given, file) in [
            (&[("AZURE_OPENAI_ENDPOINT", "https://mine.openai.azure.com")][..], "OPENAI_API_KEY=k"),
            (&[("OPENAI_API_KEY", "k")], "AZURE_OPENAI_ENDPOINT=https://mine.openai.azure.com"),
        ] {
            let [told, live] = led_again(given, file);
            assert_eq!(told, format!("{others} {together} {azure} | OPENAI_BASE_URL"));
            assert_eq!(live, format!("{others} {azure} | OPENAI_BASE_URL"));
        }
        let given = [("AZURE_OPENAI_ENDPOINT", "https://mine.openai.azure.com"), ("OPENAI_API_BASE", "http://a/v1")];
        assert_eq!(led_again(&given, "")[0], format!("OPENAI_API_BASE http://a/v1 {others} {together} {azure} | "));
    }

    /// together 3.1 for Python and together-ai 0.52 for JavaScript.
    #[test]
    fn together_is_led_only_where_it_was() {
        let given = [("TOGETHER_BASE_URL", "http://127.0.0.1:5/v1")];
        let led = "OPENAI_BASE_URL OPENAI_API_BASE ANTHROPIC_BASE_URL GROQ_BASE_URL";
        assert_eq!(left(&given, ""), format!("{led} TOGETHER_BASE_URL | "));
        assert_eq!(left(&[], ""), format!("{led} | "));
        let key = ("TOGETHER_API_KEY", "k");
        assert_eq!(left(&[key], ""), format!("{led} | TOGETHER_BASE_URL by its clients"));
        assert_eq!(left(&[], "TOGETHER_API_KEY=k"), format!("{led} | TOGETHER_BASE_URL by its clients"));
        assert_eq!(left(&[key, given[0]], ""), format!("{led} TOGETHER_BASE_URL | "));
    }

    /// openai 6.49 for JavaScript, and langchain-openai 1.7.
    #[test]
    fn clients_of_azure_find_nothing_of_openai_that_was_not_there() {
        let azure = ("AZURE_OPENAI_ENDPOINT", "https://mine.openai.azure.com");
        let led = "ANTHROPIC_BASE_URL GROQ_BASE_URL";
        assert_eq!(left(&[azure], ""), format!("{led} AZURE_OPENAI_ENDPOINT | "));
        // Who has a key calls OpenAI's own, too, and who has Azure's address elsewhere may.
        let said = format!("{led} AZURE_OPENAI_ENDPOINT | for AZURE_OPENAI_ENDPOINT");
        assert_eq!(left(&[azure, ("OPENAI_API_KEY", "k")], ""), said);
        assert_eq!(left(&[azure], "OPENAI_API_KEY=k"), said);
        assert_eq!(left(&[], "AZURE_OPENAI_API_KEY=k"), format!("{led} | for AZURE_OPENAI_API_KEY"));
        let given = [azure, ("OPENAI_BASE_URL", "http://127.0.0.1:5/v1")];
        let led = format!("OPENAI_BASE_URL {led} AZURE_OPENAI_ENDPOINT");
        assert_eq!(left(&given, ""), format!("{led} | OPENAI_API_BASE beside OPENAI_BASE_URL"));
        let given = [azure, ("OPENAI_BASE_URL", "https://api.openai.com/v1")];
        assert_eq!(left(&given, ""), format!("{led} | "));
    }

    #[test]
    fn an_address_that_calls_are_not_passed_on_to_is_named() {
        let given = [
            ("OPENAI_API_BASE", "http://me:secret@127.0.0.1:1/v1"),
            ("ANTHROPIC_BASE_URL", "https://gateway/v1?key=secret"),
            ("GROQ_BASE_URL", "no address"),
        ];
        let said: Vec<String> = left_alone(lookup(&given)).map(|(name, why)| format!("{name}: {why}")).collect();
        insta::assert_snapshot!(said.join("\n"), @r#"
        OPENAI_API_BASE: it has credentials, which are the client's to make a header of
        ANTHROPIC_BASE_URL: it has a query, which each client puts somewhere else
        "#);
        assert_eq!(shown(&all(lookup(&given))), ["TOGETHER_BASE_URL https://api.together.xyz/v1"]);
    }

    #[test]
    fn who_answers_is_known_by_the_address() {
        let provider = |base: &str| all(lookup(&[("OPENAI_BASE_URL", base)]))[0].provider;
        assert_eq!(provider("https://api.openai.com/v1"), "openai");
        assert_eq!(provider("https://mine.openai.azure.com/openai/v1"), "azure.ai.openai");
        assert_eq!(provider("https://openrouter.ai/api/v1"), "openrouter");
        assert_eq!(provider("https://notopenrouter.ai/api/v1"), "openai");
        assert_eq!(provider("http://127.0.0.1:11434/v1"), "openai");
    }

    #[test]
    fn what_is_behind_a_proxy_of_the_network_is_left_alone() {
        let left = |given: &[(&str, &str)]| shown(&reachable(all(lookup(&[])), lookup(given))).len();
        assert_eq!(left(&[]), 5);
        assert_eq!(left(&[("HTTPS_PROXY", "http://proxy:3128")]), 0);
        assert_eq!(left(&[("https_proxy", "http://proxy:3128"), ("no_proxy", "localhost, .openai.com,groq.com")]), 3);
        assert_eq!(left(&[("HTTP_PROXY", "http://proxy:3128")]), 5);
        let local = [("OPENAI_BASE_URL", "http://127.0.0.1:1")];
        let given = [("all_proxy", "http://proxy:3128")];
        assert_eq!(shown(&reachable(all(lookup(&local)), lookup(&given))).len(), 1);
        assert_eq!(left(&[("ALL_PROXY", "socks5://proxy"), ("NO_PROXY", "*")]), 5);
    }
}
