//! `runspan sql`: questions in SQL over the runs of a store.

use std::time::Duration;

use runspan::store::files::database::{SqlAnswer, SqlError, SqlLimits, VIEWS};
use serde::Serialize;
use serde_json::Value as Json;

use super::numbers::whole;
use super::output::{count, csv};
use super::table::{Cell, Column, Table};
use super::{CODE_FAILED, CODE_USE, Done, Format, Session, Stop, progress};

/// What `sql` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runspan sql                    the views and their columns
  runspan sql 'select agent_id, count(*), sum(cost_nano_usd) / 1e9 as usd from runs group by 1 order by 3 desc'
  runspan sql \"select type, count(*) as n from errors where is_failure group by 1\" --format csv

Only reading, over the views of docs/sql.md; the dialect is SQLite's.")]
pub struct Args {
    /// One statement that selects; without it, the views are listed
    statement: Option<String>,
    /// How many rows at most; 0 for all
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = whole::<usize>, allow_hyphen_values = true)]
    limit: usize,
    /// Seconds that it may take
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

#[derive(Serialize)]
struct ColumnLine {
    view: &'static str,
    column: &'static str,
    about: &'static str,
}

/// Answers, or lists what can be asked.
pub fn run(args: &Args, session: &mut Session<'_>) -> Done {
    let Some(statement) = &args.statement else { return print_views(session) };
    let Some(reader) = session.open()? else {
        return Err(Stop::failed(CODE_FAILED, "there is no run store here").hint("name one with --store PATH"));
    };
    let index = progress::open_index(&reader, session)?;
    let limits = SqlLimits { rows: args.limit, time: Duration::from_secs(args.timeout) };
    let answer = index.sql(statement, limits).map_err(|error| stop(statement, &error))?;
    print(&answer, session)?;
    if answer.is_cut {
        session.hint(&format!("there are more than {} rows; --limit 0 has all", count(args.limit as u64)));
    }
    Ok(())
}

fn print(answer: &SqlAnswer, session: &mut Session<'_>) -> Done {
    match session.format {
        Format::Table => {
            let columns: Vec<Column> = answer.columns.iter().enumerate().map(|(at, _)| column(answer, at)).collect();
            let mut table = Table::new(&columns);
            table.row(answer.columns.iter().map(|name| Cell::new(name).style(super::output::BOLD)).collect());
            for row in &answer.rows {
                table.row(row.iter().map(|value| Cell::new(shown(value))).collect());
            }
            // The titles are a row of their own: they are not known when this is compiled.
            let text = table.render(session.look);
            session.print(text.split_once('\n').map_or("", |(_, rows)| rows))
        }
        Format::Csv => {
            let columns: Vec<&str> = answer.columns.iter().map(String::as_str).collect();
            session.print(&csv(&columns, answer.rows.iter().map(|row| row.iter().map(shown).collect())))
        }
        _ => {
            let object = |row: &Vec<Json>| -> Json {
                answer.columns.iter().cloned().zip(row.iter().cloned()).collect::<serde_json::Map<_, _>>().into()
            };
            session.print_data(&answer.rows.iter().map(object).collect::<Vec<_>>())
        }
    }
}

/// Numbers stand at the right.
fn column(answer: &SqlAnswer, at: usize) -> Column {
    let is_number = |row: &Vec<Json>| row[at].is_number() || row[at].is_null();
    let is_told = answer.rows.iter().any(|row| row[at].is_number());
    if is_told && answer.rows.iter().all(is_number) {
        Column::new("", 0).right()
    } else {
        Column::new("", 0).shrinks_to(8)
    }
}

fn shown(value: &Json) -> String {
    match value {
        Json::Null => String::new(),
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn print_views(session: &mut Session<'_>) -> Done {
    let columns = VIEWS.iter().flat_map(|view| {
        view.columns.iter().map(|column| ColumnLine { view: view.name, column: column.name, about: column.about })
    });
    let columns: Vec<ColumnLine> = columns.collect();
    match session.format {
        Format::Table => {
            let mut table =
                Table::new(&[Column::new("VIEW", 0), Column::new("COLUMN", 0), Column::new("", 0).shrinks_to(20)]);
            for line in &columns {
                table.row([line.view, line.column, line.about].map(Cell::new).to_vec());
            }
            session.print(&table.render(session.look))
        }
        Format::Csv => {
            let row = |line: &ColumnLine| [line.view, line.column, line.about].map(str::to_owned).to_vec();
            session.print(&csv(&["view", "column", "about"], columns.iter().map(row)))
        }
        _ => session.print_data(&columns),
    }
}

/// Says what is wrong, with the line of the statement that it is in and a mark below the place.
fn stop(statement: &str, error: &SqlError) -> Stop {
    let code = if error.is_wrong_use { CODE_USE } else { CODE_FAILED };
    let stop = Stop::failed(code, &error.what);
    match error.at {
        Some(at) => stop.marked(statement, at),
        None => stop,
    }
    .hint("runspan sql alone lists the views and their columns; docs/sql.md has more")
}
