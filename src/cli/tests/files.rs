//! Files that `import` is given, as programs, editors and crashes leave them.

use std::io::Write;

use super::*;

/// A request of one span of its own, as a line.
fn line(id: u8, more: &str) -> String {
    let attribute = r#"{"key":"gen_ai.operation.name","value":{"stringValue":"chat"}}"#;
    format!(
        r#"{{"resourceSpans":[{{{more}"scopeSpans":[{{"spans":[{{"traceId":"{id:032x}","spanId":"{id:016x}","name":"chat","startTimeUnixNano":"{START_MS}000000","endTimeUnixNano":"{START_MS}000000","attributes":[{attribute}]}}]}}]}}]}}"#
    )
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

#[test]
fn all_that_is_whole_is_taken_and_the_rest_is_told() {
    let [a, b, c] = [1, 2, 3].map(|id| line(id, ""));
    let pretty =
        |text: &str| serde_json::to_string_pretty(&serde_json::from_str::<serde_json::Value>(text).unwrap()).unwrap();
    let zeros = |n: usize| "\0".repeat(n);
    let large = format!(
        r#""resource":{{"attributes":[{{"key":"k","value":{{"stringValue":"{}"}}}}]}},"#,
        "word ".repeat(4 << 20)
    );
    let utf16: Vec<u8> = a.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let files: Vec<(&str, Vec<u8>)> = vec![
        ("lines", format!("{a}\n{b}\n{c}").into()),
        ("zeros between", format!("{a}\n{}\n{b}\n{c}\n", zeros(4096)).into()),
        ("zeros behind", format!("{a}\n{b}\n{}", zeros(4096)).into()),
        ("zeros first", format!("{}{a}\n{b}\n", zeros(9000)).into()),
        ("a mark", format!("\u{feff}{a}\r\n{b}").into()),
        ("a mark of one", format!("\u{feff}{}", pretty(&a)).into()),
        ("behind each other", format!("{a}{b}").into()),
        ("behind each other, over lines", format!("{}\n{}\n", pretty(&a), pretty(&b)).into()),
        ("a list", format!("[{a},\n{b}]").into()),
        ("the last is cut", format!("{}{}{{\"resource", pretty(&a), pretty(&b)).into()),
        ("gzip, zeros", [gzip(format!("{a}\n{b}").as_bytes()), vec![0; 512]].concat()),
        ("gzip, more", [gzip(format!("{a}\n{b}").as_bytes()), b"garbage".to_vec()].concat()),
        ("gzip of two", [gzip(format!("{a}\n").as_bytes()), gzip(b.as_bytes())].concat()),
        ("zstd", zstd::encode_all(format!("{a}\n{b}").as_bytes(), 0).unwrap()),
        ("utf-16", utf16),
        ("a large resource", format!("{}\n{b}", line(1, &large)).into()),
        ("no object", b"[]\n{}\n5".to_vec()),
    ];
    let lines = files.iter().map(|(what, bytes)| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        std::fs::write(&file, bytes).unwrap();
        let answer = runspan(dir.path(), &["import", file.to_str().unwrap()]);
        let said = answer.err.replace(&format!("{}", file.display()), "f");
        format!("{what}: {} {} {}", answer.code, answer.out.trim(), said.trim().replace('\n', " | "))
            .trim_end()
            .to_owned()
    });
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"), @r"
    lines: 0 3 spans stored
    zeros between: 1 3 spans stored f, line 2: it has 4096 zeros beside its text: what may have stood there is lost
    zeros behind: 1 2 spans stored f, line 3: it has 4096 zeros beside its text: what may have stood there is lost
    zeros first: 1 2 spans stored f, line 1: it has 9000 zeros beside its text: what may have stood there is lost
    a mark: 0 2 spans stored
    a mark of one: 0 1 span stored
    behind each other: 0 2 spans stored
    behind each other, over lines: 0 2 spans stored
    a list: 0 2 spans stored
    the last is cut: 1 2 spans stored f: behind 2 objects it is no JSON: EOF while parsing a string at line 53 column 11
    gzip, zeros: 0 2 spans stored
    gzip, more: 1 2 spans stored f: behind its end there is something else, which was not read
    gzip of two: 0 2 spans stored
    zstd: 0 2 spans stored
    utf-16: 1 0 spans stored f: it is UTF-16, and JSON is UTF-8: convert it (iconv -f UTF-16 -t UTF-8)
    a large resource: 1 2 spans stored f, line 1: of span 0 of the request the longest texts of the resource or scope were cut, with a mark: a resource may have 12648448 bytes, a scope 1048576
    no object: 1 0 spans stored f: it has neither resourceSpans nor resourceLogs, nor Jaeger's data | f: behind 1 object it is no JSON: there is a value that is no object
    ");
}
