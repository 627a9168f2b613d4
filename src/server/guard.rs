//! Keeps web pages of others away from a server on this machine: by name, a page can reach it through the browser of
//! whoever looks at the page.

use std::net::IpAddr;

use hyper::header::{HOST, HeaderMap, HeaderValue, ORIGIN};
use hyper::http::uri::Authority;

use super::answer::{Problem, Refusal};

/// Checks `Host` and `Origin`. `hosts`: further names of this server.
///
/// A page that has its own name point to this machine sends that name as `Host`; an address as such cannot be made to
/// point elsewhere, so any is taken. A request without one comes from no browser.
pub(super) fn check(headers: &HeaderMap, authority: Option<&Authority>, hosts: &[String]) -> Result<(), Refusal> {
    let host = authority.map(|authority| Ok(authority.as_str())).or_else(|| headers.get(HOST).map(text));
    if let Some(host) = host {
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
        check(&headers.collect(), None, &["bridge".to_owned()]).err().map(|refusal| refusal.problem)
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
