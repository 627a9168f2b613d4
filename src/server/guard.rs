//! Keeps web pages of others away from a server on this machine: by name, a page can reach it through the browser of
//! whoever looks at the page.

use std::net::IpAddr;

use hyper::Version;
use hyper::header::{HOST, HeaderMap, HeaderValue, ORIGIN};
use hyper::http::uri::Authority;

use super::answer::{Problem, Refusal};

/// Checks `Host` and `Origin`. `hosts`: further names of this server.
///
/// A page that has its own name point to this machine sends that name as `Host`; an address as such cannot be made to
/// point elsewhere, so any is taken. A request of HTTP/1.1 has just one (RFC 9112, 3.2).
pub(super) fn check(
    version: Version,
    headers: &HeaderMap,
    authority: Option<&Authority>,
    hosts: &[String],
) -> Result<(), Refusal> {
    let given = headers.get_all(HOST);
    let count = given.iter().count();
    if count > 1 || (count == 0 && version == Version::HTTP_11) {
        let why = format!("the request has {count} Host headers and not one");
        return Err(Refusal::new(Problem::Malformed, why));
    }
    for host in authority.map(|authority| Ok(authority.as_str())).into_iter().chain(given.iter().map(text)) {
        let host = host?;
        if !is_ours(name_of(host), hosts) {
            let host: String = host.chars().take(80).collect();
            let why = format!(
                "{host:?} is not a name of this server: use localhost, its address, or one given to it with --allow-host"
            );
            return Err(Refusal::new(Problem::WrongHost, why));
        }
    }
    if let Some(origin) = headers.get(ORIGIN) {
        let origin = text(origin)?;
        let authority = origin.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"));
        if !authority.is_some_and(|(_, authority)| is_local_page(name_of(authority), hosts)) {
            let origin: String = origin.chars().take(80).collect();
            return Err(Refusal::new(Problem::Foreign, format!("requests of the page {origin:?} are not taken")));
        }
    }
    if headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site") {
        return Err(Refusal::new(Problem::Foreign, "requests of pages of other sites are not taken".to_owned()));
    }
    Ok(())
}

/// Tells whether a text may be the name in a `Host`.
pub(super) fn is_name(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_address = name_of(text).parse::<IpAddr>().is_ok() || text.parse::<IpAddr>().is_ok();
    is_address || (!text.is_empty() && text.bytes().all(is_part))
}

fn text(value: &HeaderValue) -> Result<&str, Refusal> {
    value.to_str().map_err(|_| Refusal::new(Problem::WrongHost, "Host or Origin is not text".to_owned()))
}

/// Returns the name in `name:port`.
fn name_of(authority: &str) -> &str {
    match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => authority.rsplit_once(':').map_or(authority, |(name, _)| name),
    }
}

fn is_ours(name: &str, hosts: &[String]) -> bool {
    name.parse::<IpAddr>().is_ok() || is_named(name, hosts)
}

fn is_local_page(name: &str, hosts: &[String]) -> bool {
    name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) || is_named(name, hosts)
}

fn is_named(name: &str, hosts: &[String]) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || hosts.iter().any(|host| name.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(pairs: &[(&'static str, &'static str)]) -> Option<Problem> {
        let headers = pairs
            .iter()
            .map(|(key, value)| (hyper::header::HeaderName::from_static(key), HeaderValue::from_static(value)));
        let (headers, hosts) = (headers.collect(), ["bridge".to_owned()]);
        check(Version::HTTP_10, &headers, None, &hosts).err().map(|refusal| refusal.problem)
    }

    #[test]
    fn a_request_of_http_1_1_names_one_host_and_whatever_names_one_is_looked_at() {
        let checked = |version, hosts: &[&'static str], authority: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.extend(hosts.iter().map(|host| (HOST, HeaderValue::from_static(host))));
            let authority = authority.map(Authority::from_static);
            check(version, &headers, authority.as_ref(), &[]).err().map(|refusal| refusal.problem)
        };
        let (one, two, local) = (Version::HTTP_11, Version::HTTP_2, Some("localhost:4318"));
        assert_eq!(checked(one, &["localhost"], None), None);
        assert_eq!(checked(one, &[], None), Some(Problem::Malformed));
        assert_eq!(checked(one, &["localhost", "evil.example"], None), Some(Problem::Malformed));
        assert_eq!(checked(one, &["evil.example"], local), Some(Problem::WrongHost));
        assert_eq!(checked(two, &[], local), None);
        assert_eq!(checked(two, &[], Some("evil.example")), Some(Problem::WrongHost));
    }

    #[test]
    fn a_name_has_neither_scheme_nor_port_nor_path() {
        for (text, expected) in [
            ("bridge", true),
            ("my_bridge-2.example.", true),
            ("::1", true),
            ("[::1]", true),
            ("http://bridge", false),
            ("bridge:4318", false),
            ("bridge/", false),
            ("*", false),
            ("", false),
        ] {
            assert_eq!(is_name(text), expected, "{text}");
        }
    }

    #[test]
    fn only_names_of_this_machine_and_pages_on_it_come_through() {
        for host in
            ["localhost", "localhost:4318", "LOCALHOST.:1", "127.0.0.1:4318", "[::1]:4318", "bridge:4318", "10.0.0.1"]
        {
            assert_eq!(checked(&[("host", host)]), None, "{host}");
        }
        for host in
            ["evil.example", "127.0.0.1.evil.com:4318", "localhost.evil.com", "", "bridge.evil.com", "local host"]
        {
            assert_eq!(checked(&[("host", host)]), Some(Problem::WrongHost), "{host}");
        }
        assert_eq!(checked(&[]), None);
        for origin in ["http://localhost:3000", "http://127.0.0.1", "https://[::1]:8080", "http://bridge"] {
            assert_eq!(checked(&[("host", "localhost"), ("origin", origin)]), None, "{origin}");
        }
        for origin in
            ["https://evil.example", "null", "http://10.0.0.1", "file://localhost", "http://localhost.evil.com"]
        {
            assert_eq!(checked(&[("host", "localhost"), ("origin", origin)]), Some(Problem::Foreign), "{origin}");
        }
        assert_eq!(checked(&[("sec-fetch-site", "cross-site")]), Some(Problem::Foreign));
        assert_eq!(checked(&[("sec-fetch-site", "same-origin")]), None);
    }
}
