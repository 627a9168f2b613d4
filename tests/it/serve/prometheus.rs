//! A real Prometheus that scrapes a server, by the configuration that is shipped.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value as Json;

use crate::forward::free_address;
use crate::support::{Killed, TestDir, tempdir};

pub struct Prometheus {
    _running: Killed,
    web: SocketAddr,
    work: TestDir,
}

impl Prometheus {
    /// Starts it, with the server's address and a shorter interval in the place of those that are shipped; `None` when tests
    /// with peers are switched off.
    pub fn scraping(server: SocketAddr) -> Option<Self> {
        let program = crate::interop::program("prometheus")?;
        let (work, web) = (tempdir(), free_address());
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("collector-config/prometheus.yaml");
        let config = std::fs::read_to_string(shipped).unwrap();
        assert!(config.contains("127.0.0.1:4319") && config.contains("15s"));
        let config = config.replace("127.0.0.1:4319", &server.to_string()).replace("15s", "1s");
        std::fs::write(work.path().join("prometheus.yaml"), config).unwrap();
        let running = Killed(
            Command::new(program)
                .arg(format!("--config.file={}", work.path().join("prometheus.yaml").display()))
                .arg(format!("--storage.tsdb.path={}", work.path().join("data").display()))
                .arg(format!("--web.listen-address={web}"))
                .arg("--enable-feature=exemplar-storage")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(std::fs::File::create(work.path().join("log")).unwrap())
                .spawn()
                .unwrap(),
        );
        Some(Self { _running: running, web, work })
    }

    /// Asks its API; `None` while it does not answer, or when it refuses.
    pub fn asked(&self, path: &str) -> Option<Json> {
        std::net::TcpStream::connect(self.web).ok()?;
        let (code, body) = crate::interop::get(self.web, path);
        (code == 200).then(|| serde_json::from_str(&body).ok()).flatten()
    }

    /// Returns the values that a query has now; `None` when it is refused.
    pub fn values(&self, query: &str) -> Option<Vec<f64>> {
        let answer = self.asked(&format!("/api/v1/query?query={}", encoded(query)))?;
        let samples = answer["data"]["result"].as_array()?;
        samples.iter().map(|sample| sample["value"][1].as_str()?.parse().ok()).collect()
    }

    /// Returns the only value of a query.
    pub fn value(&self, query: &str) -> Option<f64> {
        self.values(query)?.first().copied()
    }

    /// Returns the labels of all exemplars that a query leads to.
    pub fn exemplars(&self, query: &str) -> Option<Vec<Json>> {
        let path = format!("/api/v1/query_exemplars?query={}&start=0&end=9999999999", encoded(query));
        let found = self.asked(&path)?;
        let of = |series: &Json| series["exemplars"].as_array().cloned().unwrap_or_default();
        Some(found["data"].as_array()?.iter().flat_map(of).map(|exemplar| exemplar["labels"].clone()).collect())
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.work.path().join("log")).unwrap_or_default()
    }
}

fn encoded(query: &str) -> String {
    query.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
