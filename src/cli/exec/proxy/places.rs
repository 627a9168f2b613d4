//! Where model calls go: which variable an SDK reads, and where it calls without.

use std::net::SocketAddr;

use hyper::{Method, Uri};
use runspan::conventions::providers::HOSTS;
pub use runspan::replay::Format;

use super::dotenv::{Files, Found};

/// A service whose SDK takes its address from the environment.
struct Service {
    /// With what paths begin that are for each. Those that are set lead where they led; where any is, the others stay as
    /// they are, since clients differ in which of them they read, and in what order.
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
}

const SERVICES: &[Service] = &[
    Service {
        variables: &[("OPENAI_BASE_URL", "/openai"), ("OPENAI_API_BASE", "/openai-base")],
        default: Some("https://api.openai.com/v1"),
        provider: "openai",
        key: "OPENAI_API_KEY",
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
        variables: &[("AZURE_OPENAI_ENDPOINT", "/azure")],
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
        let mut led: Vec<_> = service.set(&given).collect();
        let is_default = led.is_empty();
        if let Some(default) = service.default.filter(|_| is_default) {
            led.extend(service.variables.iter().map(|&variable| (variable, default.to_owned())));
        }
        for ((variable, prefix), text) in led {
            let Some(base) = address(&text).filter(|base| why_left_alone(base).is_none()) else { continue };
            let provider = provider_at(base.host().unwrap_or_default()).unwrap_or(service.provider);
            let ends_in_slash = text.ends_with('/');
            places.push(Place { variable, base, provider, prefix, is_default, ends_in_slash });
        }
    }
    places
}

/// Variables of which each says that Azure's clients are used.
const AZURE: &[&str] = &["AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY", "OPENAI_API_VERSION"];

/// Why variables of a service are left as they are, which would lead to places.
#[derive(Debug)]
pub enum Unled<'a> {
    /// A variable stands in a file that the command may read, and there it would not win any more.
    InFile(&'static str, &'a Found),
    /// Clients for Azure take the variables of OpenAI's for their own: that of JavaScript before its endpoint (6.49), and
    /// LangChain's refuses to begin. By which variable it is known that there may be one.
    Azure(&'static str),
}

/// Returns the places of a command that asks its models itself, and which services are left out that would have one. There
/// only what is sure to lead where it led without is set.
pub fn of_command(given: impl Fn(&str) -> Option<String>, files: &Files) -> (Vec<Place>, Vec<Unled<'_>>) {
    let mut places = all(&given);
    let mut unled = Vec::new();
    for service in SERVICES.iter().filter(|service| service.default.is_some()) {
        if service.set(&given).next().is_some() {
            continue;
        }
        let in_file = service.variables.iter().find_map(|(name, _)| Some(Unled::InFile(name, files.get(name)?)));
        let for_azure = || {
            let is_there = |name: &&&str| given(name).is_some() || files.get(name).is_some();
            let name = AZURE.iter().find(is_there).filter(|_| service.provider == "openai")?;
            Some(Unled::Azure(name))
        };
        let why = in_file.or_else(for_azure);
        if why.is_some() || service.is_for_replay {
            places.retain(|place| service.variables.iter().all(|(name, _)| *name != place.variable));
        }
        unled.extend(why);
    }
    (places, unled)
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
        let here = self.uri()?;
        let scheme = here.scheme_str()?;
        let there = match location {
            _ if location.starts_with("//") => format!("{scheme}:{location}"),
            _ if location.starts_with('/') => format!("{scheme}://{}{location}", here.authority()?),
            _ => location.to_owned(),
        };
        let target: Uri = there.parse().ok()?;
        let path = target.path_and_query().map_or("/", |path| path.as_str());
        let base = &self.place.base;
        let place = origin(base)?;
        let part = match origin(&target)? {
            there if there == place => Part::Server,
            ("https", name, 443) if place == ("http", name.clone(), 80) => Part::Secure,
            // Without a scheme it would be asked for plainly, as this port is.
            _ => return location.starts_with("//").then_some(there),
        };
        let below = path.strip_prefix(base.path().trim_end_matches('/')).filter(|_| part == Part::Server);
        let below = below.filter(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
        let word = Part::BEHIND.iter().find(|(_, behind)| *behind == part).map_or("", |(word, _)| word);
        let rest = below.map_or_else(|| format!("{word}{path}"), str::to_owned);
        Some(format!("http://{port}{}{rest}", self.place.prefix))
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
        // What leads to another server, or says only what follows, stays.
        assert_eq!(of("http://b:8000/v1/chat/completions"), "");
        assert_eq!(of("https://a:8000/v1/chat/completions"), "");
        assert_eq!(of("//b/v1"), "http://b/v1");
        assert_eq!(of("completions/"), "");
        assert_eq!(of("?a=b"), "");
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
        let files = Files::of(dir.path(), &[]);
        let (places, unled) = of_command(lookup(given), &files);
        let led: Vec<_> = places.iter().map(|place| place.variable).collect();
        let unled: Vec<_> = unled
            .iter()
            .map(|unled| match unled {
                Unled::InFile(name, _) => format!("{name} in the file"),
                Unled::Azure(name) => format!("for {name}"),
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
        assert_eq!(left(&given, file), "OPENAI_BASE_URL ANTHROPIC_BASE_URL GROQ_BASE_URL | ");
    }

    /// together 3.1 for Python and together-ai 0.52 for JavaScript.
    #[test]
    fn together_is_led_only_where_it_was() {
        let given = [("TOGETHER_BASE_URL", "http://127.0.0.1:5/v1")];
        let led = "OPENAI_BASE_URL OPENAI_API_BASE ANTHROPIC_BASE_URL GROQ_BASE_URL";
        assert_eq!(left(&given, ""), format!("{led} TOGETHER_BASE_URL | "));
        assert_eq!(left(&[], ""), format!("{led} | "));
    }

    /// openai 6.49 for JavaScript, and langchain-openai 1.7.
    #[test]
    fn clients_of_azure_find_nothing_of_openai_that_was_not_there() {
        let azure = ("AZURE_OPENAI_ENDPOINT", "https://mine.openai.azure.com");
        let led = "ANTHROPIC_BASE_URL GROQ_BASE_URL";
        assert_eq!(left(&[azure], ""), format!("{led} AZURE_OPENAI_ENDPOINT | for AZURE_OPENAI_ENDPOINT"));
        assert_eq!(left(&[], "AZURE_OPENAI_API_KEY=k"), format!("{led} | for AZURE_OPENAI_API_KEY"));
        let given = [azure, ("OPENAI_BASE_URL", "http://127.0.0.1:5/v1")];
        assert_eq!(left(&given, ""), format!("OPENAI_BASE_URL {led} AZURE_OPENAI_ENDPOINT | "));
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
