//! What is said where something is wrong: what it is and where, and no secrets.

use super::*;

#[test]
fn a_mistake_in_a_target_names_the_option_and_no_secret() {
    let store = Store::new();
    let said = |args: &[&str]| {
        let answer = runspan(store.dir.path(), args);
        assert_eq!((answer.code, answer.out.as_str()), (2, ""), "{args:?}");
        assert!(!answer.err.to_lowercase().contains("s3cret"), "{}", answer.err);
        answer.err.split("\n\n").next().unwrap().trim_end().to_owned()
    };
    let options = "http://h#header.authorization=Bearer%20S3CRET&compresion=gzip";
    let all = [
        said(&["serve", "--forward", options]),
        said(&["export", "--otlp", options]),
        said(&["serve", "--forward", "https://user:s3cret@h:4318?key=s3cret#timeout=s3cret"]),
        said(&["serve", "--forward", "grpc://user:s3c?re/t@h#header.x=a&s3cret"]),
        said(&["serve", "--forward", "http://h#header.authorization: Bearer s3cret=a"]),
        said(&["serve", "--forward", "user:s3cret@h#header.a=s3cret"]),
        said(&["serve", "--forward", "ftp://user:s3cret@h"]),
        said(&["serve", "--forward", "http://user:s3#cret@h"]),
        said(&["serve", "http://user:s3cret@h"]),
        said(&["serve", "--otlp-http", "http://user:s3cret@h:4318"]),
        said(&["forward", "retry", "--target", "http://h#header.authorization=s3cret&compresion=gzip"]),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    error: invalid value 'http://h/v1/traces' for '--forward <URL>': option "compresion" is none of protocol, compression, timeout, header.NAME, ca, cert, key, own_metrics
    error: invalid value 'http://h/v1/traces' for '--otlp <URL>': option "compresion" is none of protocol, compression, timeout, header.NAME, ca, cert, key, own_metrics
    error: invalid value 'https://h:4318' for '--forward <URL>': option "timeout" is not a positive number of milliseconds
    error: invalid value 'grpc://h' for '--forward <URL>': option "number 2" has no value: write name=value
    error: invalid value 'http://h/v1/traces' for '--forward <URL>': header "authorization" is not a header name
    error: invalid value 'h' for '--forward <URL>': endpoint "h" has no scheme; write http://, https://, grpc:// or grpcs:// before the host
    error: invalid value 'ftp://h' for '--forward <URL>': endpoint "ftp://h" has a scheme other than http, https, grpc and grpcs
    error: invalid value 'http://user:***' for '--forward <URL>': option "number 1" has no value: write name=value
    error: unexpected argument 'http://h/v1/traces' found
    error: invalid value 'http://h:4318/v1/traces' for '--otlp-http <ADDR>': expected PORT or ADDRESS:PORT, as in 4318 or 127.0.0.1:4318
    error: http://h/v1/traces: option "compresion" is none of protocol, compression, timeout, header.NAME, ca, cert, key, own_metrics
    "#);
}

#[test]
fn a_file_of_prices_with_a_field_that_is_misspelled_is_refused() {
    let cwd = tempfile::tempdir().unwrap();
    let (file, store) = (cwd.path().join("mine.json"), cwd.path().join("store"));
    let store = store.to_str().unwrap();
    let said = |models: &str| {
        let provider = format!(r#"[{{"id":"acme","name":"Acme","api_pattern":"acme",{models}}}]"#);
        std::fs::write(&file, provider).unwrap();
        let answer = runspan(cwd.path(), &["--store", store, "prices", "override", file.to_str().unwrap()]);
        let said = answer.err.replace(&file.display().to_string(), "mine.json");
        format!("{} {}", answer.code, said.trim_end())
    };
    let model = |prices: &str| said(&format!(r#""models":[{{"id":"small","match":{{"equals":"small"}}{prices}}}]"#));
    let all = [
        said(r#""modles":[]"#),
        said(r#""models":[]"#),
        model(r#","pricess":1,"prices":{"input_mtok":1}"#),
        model(""),
        model(r#","prices":[]"#),
        model(r#","prices":[{"prices":{"input_mtok":1},"constrain":{}}]"#),
        model(r#","prices":{"input_mtok":{"base":1,"tiers":[],"tier":1}}"#),
        model(
            r#","prices":{"input_mtok":1},"price_variants":[{"when":{"service_tier":"flex"},"prices":{"inptu_mtok":1}}]"#,
        ),
        model(r#","prices":{"input_mtok":1},"price_variants":[{"when":{"service_tier":"default"},"prices":{}}]"#),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    2 error: prices of mine.json can't be used: acme has a field "modles", which is none of id, name, api_pattern, models, model_match, provider_match, fallback_model_providers, extractors, pricing_urls, price_comments, description
    2 error: prices of mine.json can't be used: acme has no models
    2 error: prices of mine.json can't be used: acme/small has a field "pricess", which is none of id, match, prices, price_variants, name, description, context_window, deprecated, price_comments, prices_checked, price_discrepancies, collapse
    2 error: prices of mine.json can't be used: acme/small has no prices: give a free one `"prices": {"input_mtok": 0, "output_mtok": 0}`
    2 error: prices of mine.json can't be used: invalid provider data: provider "acme" model "small" has no conditional prices
    2 error: prices of mine.json can't be used: an entry in the prices of acme/small has a field "constrain", which is none of prices, constraint
    2 error: prices of mine.json can't be used: input_mtok of acme/small has a field "tier", which is none of base, tiers
    2 error: prices of mine.json can't be used: a price variant of acme/small has a price "inptu_mtok", which is for no unit that the table knows
    0
    "#);
    // As the table says of what is free, and all else that it has.
    assert_eq!(model(r#","prices":{}"#).trim_end(), "0");
    let table = concat!(env!("CARGO_MANIFEST_DIR"), "/src/conventions/prices/genai-prices.json");
    assert_eq!(runspan(cwd.path(), &["--store", store, "prices", "override", table]).code, 0);
}

#[test]
fn a_tier_without_prices_of_its_own_is_not_shown_those_of_any_call() {
    let at = |day: &str, args: &[&str]| {
        let answer = runspan(Path::new("/"), &[&["prices", "lookup", "--at", day], args].concat());
        let first = answer.out.lines().nth(1).unwrap_or_default();
        format!("{} {first}{}", answer.code, answer.err.trim_end())
    };
    let said = |args: &[&str]| at("2026-11-01T00:00:00Z", args);
    let all = [
        said(&["gpt-5-mini", "--tier", "xyz"]),
        said(&["gpt-5-mini", "--tier", "xyz", "--json"]),
        said(&["sonar", "--provider", "perplexity", "--tier", "flex"]),
        at("2026-10-01T00:00:00Z", &["gpt-5-mini", "--tier", "flex"]),
        said(&["gpt-5-mini", "--tier", "flex"]),
        said(&["gpt-5-mini", "--tier", "Batch"]),
        said(&["gpt-4o", "--tier", "standard"]),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    1 error: no prices of a tier "xyz" in genai-prices 0.2.1 openai/gpt-5-mini
    hint: tiers with prices of their own: batch, fast, flex, priority; a call in another has those of any call
    1 error: no prices of a tier "xyz" in genai-prices 0.2.1 openai/gpt-5-mini
    hint: tiers with prices of their own: batch, fast, flex, priority; a call in another has those of any call
    1 error: no prices of a tier "flex" in genai-prices 0.2.1 perplexity/sonar
    hint: tiers with prices of their own: none; a call in another has those of any call
    1 error: no prices of a tier "flex" in genai-prices 0.2.1 openai/gpt-5-mini
    hint: tiers with prices of their own: none; a call in another has those of any call
    0 openai    gpt-5-mini  $0.125     $0.0125       $0.125   $1.00
    0 openai    gpt-5-mini  $0.125     $0.0125       $0.125   $1.00
    0 openai    gpt-4o  $2.50       $1.25        $2.50  $10.00
    "#);
}

#[test]
fn unpin_says_what_it_did_and_help_that_cannot_be_printed_is_a_failure() {
    let mut store = Store::new();
    let run = store.record_agent(1).to_string();
    drop(store._lock);
    let said = |command: &str| runspan(store.dir.path(), &[command, &run]).out.replace(&run, "RUN");
    let all: String = ["unpin", "pin", "pin", "unpin", "unpin"].map(said).concat();
    insta::assert_snapshot!(all, @r#"
    RUN was not pinned
    RUN is pinned
    RUN is already pinned
    RUN is no longer pinned
    RUN was not pinned
    "#);
    let look = Look { width: 100, cuts: true, colour: false, is_terminal: false };
    let (place, mut err) = (Place { look, cwd: "/".into(), is_stdout: false }, Vec::new());
    let mut full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let code = execute(["runspan", "--help"], place, &mut full, &mut err);
    let err = String::from_utf8(err).unwrap();
    assert!(code == 3 && err.starts_with("error: cannot write to standard output"), "{code} {err}");
}

#[test]
fn embeddings_are_no_model_calls_and_groups_add_up_to_what_is_said_of_all() {
    let dir = tempfile::tempdir().unwrap();
    let span = |id: u8, operation: &str, model: &str| {
        let attribute = |key: &str, value: &str| serde_json::json!({"key": key, "value": {"stringValue": value}});
        serde_json::json!({
            "traceId": format!("{:032x}", 7), "spanId": format!("{id:016x}"), "name": operation,
            "startTimeUnixNano": format!("{START_MS}000000"), "endTimeUnixNano": format!("{START_MS}000001"),
            "attributes": [attribute("gen_ai.operation.name", operation), attribute("gen_ai.request.model", model)],
        })
    };
    let spans = [span(1, "chat", "m"), span(2, "chat", "m"), span(3, "embeddings", "e")];
    let request = serde_json::json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]});
    std::fs::write(dir.path().join("f.json"), request.to_string()).unwrap();
    let asked = |args: &[&str]| runspan(dir.path(), args).out;
    asked(&["import", dir.path().join("f.json").to_str().unwrap()]);
    let calls: Vec<String> = asked(&["stats", "--by", "model"])
        .lines()
        .filter(|line| ["calls", "m ", "e ", "MODEL"].iter().any(|begin| line.starts_with(begin)))
        .map(|line| line.split_whitespace().take(12).collect::<Vec<_>>().join(" "))
        .collect();
    insta::assert_snapshot!(calls.join("\n"), @r#"
    calls 2 of models, 1 of embeddings or ranks, 0 of tools
    MODEL CALLS OK P50 P90 P99
    m ████████████ 2 100 % 0.0ms 0.0ms 0.0ms
    e ██████ 1 100 % 0.0ms 0.0ms 0.0ms
    "#);
    assert!(asked(&["get", "latest"]).contains("2 model calls"));
}

#[test]
fn heads_and_footers_are_folded_where_there_is_little_room() {
    let mut store = Store::new();
    store.record_agent(2);
    let narrow = |args: &[&str]| runspan_at(40, store.path(), args).out;
    let prices = narrow(&["prices", "lookup", "gpt-4o-mini"]);
    let all = [narrow(&["stats"]), narrow(&["cleanup", "--dry-run", "--keep", "0"]), prices].concat();
    // A command stays in one piece.
    let of_text = all.lines().filter(|line| !line.contains("runspan get"));
    let wide: Vec<&str> = of_text.filter(|line| output::width(line) > 40).collect();
    assert!(wide.is_empty(), "{wide:#?}");
}
