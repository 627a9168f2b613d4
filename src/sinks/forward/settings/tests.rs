use super::*;

type Variables<'a> = &'a [(&'a str, &'a str)];

fn from(variables: Variables<'_>) -> (Option<Target>, Vec<Warning>) {
    signal_from(Signal::Traces, variables)
}

fn signal_from(signal: Signal, variables: Variables<'_>) -> (Option<Target>, Vec<Warning>) {
    Target::from_lookup(signal, |name| {
        variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| value.into())
    })
}

#[test]
fn a_url_decides_protocol_and_path() {
    use Protocol::{Grpc, HttpProtobuf};
    for (url, protocol, endpoint) in [
        ("http://h:4318", HttpProtobuf, "http://h:4318/v1/traces"),
        ("http://h:4318/", HttpProtobuf, "http://h:4318/v1/traces"),
        (" HTTPS://h ", HttpProtobuf, "https://h/v1/traces"),
        ("https://h/api/otel", HttpProtobuf, "https://h/api/otel"),
        ("https://h/a?key=1#timeout=9", HttpProtobuf, "https://h/a?key=1"),
        ("http://h:4317", Grpc, "http://h:4317"),
        ("https://h:4317/", Grpc, "https://h:4317"),
        ("http://h:4317/v1/traces", HttpProtobuf, "http://h:4317/v1/traces"),
        ("grpc://h:9999", Grpc, "http://h:9999"),
        ("grpcs://h", Grpc, "https://h"),
        ("http://[::1]:4317", Grpc, "http://[::1]:4317"),
        ("http://[::1]", HttpProtobuf, "http://[::1]/v1/traces"),
    ] {
        let target = Target::from_url(url).unwrap();
        assert_eq!((target.protocol, target.endpoint.as_str()), (protocol, endpoint), "{url}");
    }
    let metrics = Target::from_url_for(Signal::Metrics, "http://h:4318").unwrap();
    assert_eq!(metrics.endpoint, "http://h:4318/v1/metrics");
    let metrics = Target::from_url_for(Signal::Metrics, "http://h/base/v1/traces").unwrap();
    assert_eq!(metrics.endpoint, "http://h/base/v1/metrics");
    let metrics = Target::from_url_for(Signal::Metrics, "http://h/base/v1/traces?k=/v1/traces").unwrap();
    assert_eq!(metrics.endpoint, "http://h/base/v1/metrics?k=/v1/traces");
}

#[test]
fn a_target_is_one_for_another_signal_too() {
    let other = |url: &str| {
        let target = Target::from_url(url).unwrap();
        let metrics = target.for_signal(Signal::Metrics);
        assert_eq!(metrics.for_signal(Signal::Traces).endpoint, target.endpoint);
        (metrics.protocol, metrics.endpoint)
    };
    let http = |endpoint: &str| (Protocol::HttpProtobuf, endpoint.to_owned());
    assert_eq!(other("http://h"), http("http://h/v1/metrics"));
    assert_eq!(other("http://h/base/v1/traces?key=1#protocol=http/json"), http("http://h/base/v1/metrics?key=1"));
    assert_eq!(other("http://h/own"), http("http://h/own"));
    assert_eq!(other("grpc://h:1"), (Protocol::Grpc, "http://h:1".to_owned()));
}

#[test]
fn options_stand_behind_the_url_and_are_not_sent() {
    let url = "https://me:secret@h/v1/traces?a=b#protocol=http/json&compression=gzip&timeout=250&header.X-Tenant=a%26b\
               &ca=/etc/ca.pem&cert=c.pem&key=k.pem";
    let target = Target::from_url(url).unwrap();
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let headers = [header("authorization", "Basic bWU6c2VjcmV0"), header("x-tenant", "a&b")];
    assert_eq!((target.endpoint.as_str(), &target.headers[..]), ("https://h/v1/traces?a=b", &headers[..]));
    insta::assert_compact_debug_snapshot!(target, @r#"Target { signal: Traces, endpoint: "https://h/v1/traces", protocol: HttpJson, headers: ["authorization", "x-tenant"], timeout: 250ms, compression: Gzip, tls: TlsFiles { ca: Some("/etc/ca.pem"), client_certificate: Some("c.pem"), client_key: Some("k.pem") }, own_metrics: false }"#);
    let grpc = Target::from_url("http://h:4318#protocol=grpc").unwrap();
    assert_eq!((grpc.protocol, grpc.endpoint.as_str()), (Protocol::Grpc, "http://h:4318"));
    let metrics = Target::from_url_for(Signal::Metrics, "http://h#protocol=http/json").unwrap();
    assert_eq!((metrics.protocol, metrics.endpoint.as_str()), (Protocol::HttpProtobuf, "http://h/v1/metrics"));
    let wrong = |url: &str| Target::from_url(url).unwrap_err().to_string();
    for (url, why) in [
        (
            "compress=gzip",
            "option \"compress\" is none of protocol, compression, timeout, header.NAME, ca, cert, key, own_metrics",
        ),
        ("compression=zip", "option \"compression\" is none of gzip, none"),
        ("own_metrics=yes", "option \"own_metrics\" is none of on, off"),
        ("timeout=0", "option \"timeout\" is not a positive number of milliseconds"),
        ("header.host=evil", "header \"host\" is set by the transport alone"),
        ("header.token=%zz", "option \"header.token\" has a value that can't be percent-decoded"),
        ("ca", "option \"ca\" has no value: write name=value"),
    ] {
        assert_eq!(wrong(&format!("http://h#{url}")), why);
    }
    let told = wrong("ftp://h#header.token=secret");
    assert_eq!(told, "endpoint \"ftp://h\" has a scheme other than http, https, grpc and grpcs");
}

#[test]
fn what_is_no_url_is_refused_without_telling_its_credentials() {
    for url in [
        "",
        "h",
        "h:4318",
        "ftp://h",
        "http://",
        "http://:80",
        "http://h:99999",
        "http://h:0",
        "http://h:x",
        "http://a b",
        "http://[::1",
        "https://u:s3cret@",
        "s3cret@h:1",
        "http://u:s3cret%zz@h",
    ] {
        let error = Target::from_url(url).expect_err(url).to_string();
        assert!(!error.contains("s3cret"), "{error}");
    }
}

#[test]
fn credentials_of_a_url_become_a_header_and_stay_hidden() {
    let target = Target::from_url("https://user:p%40ss@h/x?key=s3cret").unwrap();
    assert_eq!(target.endpoint, "https://h/x?key=s3cret");
    assert_eq!(target.headers, [("authorization".to_owned(), "Basic dXNlcjpwQHNz".to_owned())]);
    let shown = format!("{target:?}");
    assert!(shown.contains("authorization") && shown.contains("https://h/x"), "{shown}");
    assert!(!shown.contains("dXNl") && !shown.contains("s3cret"), "{shown}");
}

#[test]
fn endpoints_of_the_environment_follow_the_standard() {
    use Protocol::{Grpc, HttpProtobuf};
    let cases: [(Variables<'_>, Protocol, &str); 12] = [
        (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318")], HttpProtobuf, "http://c:4318/v1/traces"),
        (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/base/")], HttpProtobuf, "http://c:4318/base/v1/traces"),
        (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317")], HttpProtobuf, "http://c:4317/v1/traces"),
        (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c/b?k=1")], HttpProtobuf, "https://c/b/v1/traces?k=1"),
        (&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4318")], HttpProtobuf, "http://c:4318/"),
        (&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c/x")], HttpProtobuf, "http://c/x"),
        (
            &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", ""), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c")],
            HttpProtobuf,
            "http://c/v1/traces",
        ),
        (&[("OTEL_TRACES_EXPORTER", "otlp")], HttpProtobuf, "http://localhost:4318/v1/traces"),
        (
            &[("OTEL_TRACES_EXPORTER", "console, otlp"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
            Grpc,
            "http://localhost:4317",
        ),
        (
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317/p"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
            Grpc,
            "http://c:4317",
        ),
        (
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4317"), ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc")],
            Grpc,
            "https://c:4317",
        ),
        (
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4317"),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
                ("OTEL_EXPORTER_OTLP_INSECURE", "TRUE"),
            ],
            Grpc,
            "http://c:4317",
        ),
    ];
    for (variables, protocol, endpoint) in cases {
        let (target, warnings) = from(variables);
        let target = target.expect("a target");
        assert_eq!((target.protocol, target.endpoint.as_str()), (protocol, endpoint), "{variables:?}");
        assert_eq!((target.timeout, target.compression), (DEFAULT_TIMEOUT, Compression::None));
        assert_eq!(warnings, []);
    }
}

#[test]
fn nothing_is_sent_unless_an_endpoint_or_an_exporter_is_named() {
    let cases: [Variables<'_>; 5] = [
        &[],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"), ("OTEL_TRACES_EXPORTER", "none")],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"), ("OTEL_SDK_DISABLED", "True")],
        &[("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://c")],
    ];
    for variables in cases {
        assert_eq!(from(variables), (None, vec![]), "{variables:?}");
    }
}

#[test]
fn the_other_variables_are_read_and_the_signals_own_win() {
    let (target, warnings) = from(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "general=1"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "API-Key = a%20b%3D , x=1=2,x=3;p,, "),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2500"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "/key.pem"),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/cert.pem"),
    ]);
    assert_eq!(warnings, []);
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        target,
        Some(Target {
            signal: Signal::Traces,
            endpoint: "https://c/v1/traces".to_owned(),
            protocol: Protocol::HttpJson,
            headers: vec![header("api-key", "a b="), header("x", "3;p")],
            timeout: Duration::from_millis(2500),
            compression: Compression::Gzip,
            tls: TlsFiles {
                ca: Some("/ca.pem".into()),
                client_certificate: Some("/cert.pem".into()),
                client_key: Some("/key.pem".into()),
            },
            own_metrics: false,
        })
    );
}

#[test]
fn each_broken_value_is_named_and_counts_as_unset() {
    let (target, warnings) = from(&[
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "not a url"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "good=1,s3cret,content-type=x,bad=%zz,new=a%0Ab"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "-1"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
    ]);
    let target = target.unwrap();
    assert_eq!(target.endpoint, "http://c/v1/traces");
    assert_eq!(target.headers, [("good".to_owned(), "1".to_owned())]);
    assert_eq!((target.timeout, target.compression), (DEFAULT_TIMEOUT, Compression::None));
    let shown: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "OTEL_EXPORTER_OTLP_PROTOCOL: none of grpc, http/protobuf, http/json; using http/protobuf",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: endpoint \"not a url\" has no scheme; write http://, https://, \
             grpc:// or grpcs:// before the host; ignored",
            "OTEL_EXPORTER_OTLP_HEADERS: entry 2 is not name=value; left out",
            "OTEL_EXPORTER_OTLP_HEADERS: entry 3 is set by the transport alone; left out",
            "OTEL_EXPORTER_OTLP_HEADERS: entry 4 has a value that can't be percent-decoded; left out",
            "OTEL_EXPORTER_OTLP_HEADERS: entry 5 has a value that is not plain ASCII text; left out",
            "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT: is not a positive number of milliseconds; ignored",
            "OTEL_EXPORTER_OTLP_TIMEOUT: is not a positive number of milliseconds; ignored",
            "OTEL_EXPORTER_OTLP_COMPRESSION: none of gzip, none; not compressing",
        ]
    );
    let (broken, warnings) = from(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4318")]);
    assert_eq!((broken, warnings.len()), (None, 1));
    let (metrics, warnings) = signal_from(
        Signal::Metrics,
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")],
    );
    assert_eq!(metrics.map(|target| target.protocol), Some(Protocol::HttpProtobuf));
    assert_eq!(warnings.len(), 1);
}

#[test]
fn loopback_is_told_by_name_and_address() {
    for (url, expected) in [
        ("http://localhost:1", true),
        ("http://127.9.0.1", true),
        ("http://[::1]:1", true),
        ("http://example.com", false),
        ("http://10.0.0.1", false),
    ] {
        assert_eq!(Target::from_url(url).unwrap().is_loopback(), expected, "{url}");
    }
}
