//! Which runs are meant: the filters that `list` and whatever asks of many runs have in common.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use runspan::model::{NanoUsd, RunKind, RunStatus, UnixNanos};
use runspan::store::Query;

use super::time::{When, parse_when};

/// Which runs.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Which runs")]
pub struct Filters {
    /// Only agents, or only workflows
    #[arg(long, value_name = "KIND", value_parser = kinds())]
    kind: Option<RunKind>,
    /// Only runs of this agent
    #[arg(long, value_name = "NAME")]
    agent_id: Option<String>,
    /// Only runs of this workflow
    #[arg(long, value_name = "NAME")]
    workflow_id: Option<String>,
    /// Only runs of this status; completed, failed and pending are understood too
    #[arg(long, value_name = "STATUS", value_parser = statuses())]
    status: Option<RunStatus>,
    /// Only runs of this session
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Only runs that this model answered in, by the name under which they have it
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Only runs that began at or after this time: RFC 3339, or 90s, 15m, 2h, 7d ago
    #[arg(long, value_name = "TIME", value_parser = parse_when, allow_hyphen_values = true)]
    since: Option<When>,
    /// Only runs that began before this time
    #[arg(long, value_name = "TIME", value_parser = parse_when, allow_hyphen_values = true)]
    until: Option<When>,
    /// Only runs that cost at least this many dollars
    #[arg(long, value_name = "USD", value_parser = parse_usd, allow_hyphen_values = true)]
    min_cost: Option<NanoUsd>,
    /// Runs that repeat others: with them, without, or only those [default: with; of stats: without]
    #[arg(long, value_name = "WHICH")]
    replays: Option<Replays>,
}

/// What becomes of runs that repeat others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Replays {
    With,
    Without,
    Only,
}

fn kinds() -> impl TypedValueParser<Value = RunKind> {
    PossibleValuesParser::new(RunKind::ALL.iter().map(|kind| kind.as_str())).try_map(|word| word.parse::<RunKind>())
}

fn statuses() -> impl TypedValueParser<Value = RunStatus> {
    let words = RunStatus::ALL.iter().map(|status| {
        let value = PossibleValue::new(status.as_str());
        match status {
            RunStatus::Success => value.alias("completed"),
            RunStatus::Error => value.alias("failed"),
            RunStatus::Running => value.alias("pending"),
            _ => value,
        }
    });
    PossibleValuesParser::new(words).try_map(|word| word.parse::<RunStatus>())
}

fn parse_usd(text: &str) -> Result<NanoUsd, String> {
    let usd: f64 = text.trim_start_matches('$').parse().map_err(|_| "expected dollars, such as 0.25".to_owned())?;
    NanoUsd::from_usd(usd).filter(|amount| amount.0 >= 0).ok_or_else(|| "expected dollars, such as 0.25".to_owned())
}

impl Filters {
    /// Returns the question that they make of what runs came to: those that repeat others count only where that is asked for, since
    /// what they repeat was done once.
    pub fn query_of_sums(&self, now: UnixNanos) -> Query {
        let query = self.query(now);
        Query { replays: if self.replays.is_none() { Some(false) } else { query.replays }, ..query }
    }

    /// Returns the question that they make.
    pub fn query(&self, now: UnixNanos) -> Query {
        Query {
            kind: self.kind,
            agent_id: self.agent_id.clone(),
            workflow_id: self.workflow_id.clone(),
            status: self.status,
            session_id: self.session.clone(),
            model: self.model.clone(),
            since: self.since.map(|when| when.resolve(now)),
            until: self.until.map(|when| when.resolve(now)),
            min_cost: self.min_cost,
            replays: match self.replays {
                None | Some(Replays::With) => None,
                Some(which) => Some(which == Replays::Only),
            },
            ..Query::default()
        }
    }
}
