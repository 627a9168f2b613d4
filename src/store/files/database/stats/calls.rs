//! Sums over calls: by model, provider or tool. They walk over all steps, so several threads do, each over a part.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, Row};

use super::{By, Chosen, FEW_RUNS, Group, Outcome, Set, Sums, add_caused, micros, tokens};
use crate::model::{StepKind, StepStatus};
use crate::store::files::database::steps::{counts, step_number};
use crate::store::files::database::{Database, MMAP_BYTES, PATIENCE, Result, all_threads, on_threads, path, read_meta};

/// Sums by the number of a word; `None`: without one.
type ByWord = HashMap<Option<i64>, Sums>;

/// The numbers of words that rows are compared with.
#[derive(Clone, Copy)]
struct Known {
    success: Option<i64>,
    running: Option<i64>,
    cancelled: Option<i64>,
    llm: Option<i64>,
}

impl Database {
    pub(super) fn groups_of_calls(&self, runs: &[Chosen], by: By) -> Result<Vec<Group>> {
        let of_models = counts::CALL | counts::TOKENS | counts::COST | counts::UNPRICED;
        let (column, mask, caused) = match by {
            By::Provider => ("provider", of_models, "NULL, NULL"),
            By::Tool => ("tool", counts::TOOL_CALL, "caused_tokens, caused_cost"),
            _ => ("model", of_models, "NULL, NULL"),
        };
        let sql = format!(
            "SELECT id, {column}, counts, status, kind, duration, first_token, prompt, completion, total, cache_read, \
             cache_write, reasoning, cost, {caused} FROM steps WHERE counts & {mask} AND id >= ?1 AND id < ?2"
        );
        let known = Known {
            success: self.word(StepStatus::Success.as_str())?,
            running: self.word(StepStatus::Running.as_str())?,
            cancelled: self.word(StepStatus::Cancelled.as_str())?,
            llm: self.word(StepKind::Llm.as_str())?,
        };
        let named = self.sums(runs, &sql, known)?.into_iter().map(|(word, sums)| {
            let key = word.map(|word| self.text_of(word)).transpose()?;
            Ok(sums.into_group(key))
        });
        named.collect()
    }

    fn sums(&self, runs: &[Chosen], sql: &str, known: Known) -> Result<ByWord> {
        // Nobody else sees a temporary one, not even a second connection.
        if runs.len() > FEW_RUNS
            && !self.is_temporary()
            && let Some(sums) = self.sums_of_parts(runs, sql, known)
        {
            return Ok(sums);
        }
        let mut sums = ByWord::new();
        self.each_step(runs, sql, |run, row| add_row(&mut sums, known, run, row))?;
        Ok(sums)
    }

    /// Adds up by several threads; `None` where a second connection does not see what this one does.
    fn sums_of_parts(&self, runs: &[Chosen], sql: &str, known: Known) -> Option<ByWord> {
        let (largest, threads) = (runs.last()?.id, all_threads());
        let (set, parts) = (Set::of(runs), i64::try_from(threads).ok()?);
        let (path, identity) = (path(&self.layout), read_meta(&self.connection, "identity").ok()?);
        let border = |part: i64| step_number((largest + 1) * part / parts, 0);
        let ranges = (0..parts).map(|part| [border(part), border(part + 1)]).collect();
        let sums = on_threads(threads, ranges, |range| -> Result<Option<ByWord>> {
            let connection = second_connection(&path)?;
            if read_meta(&connection, "identity")? != identity {
                // Made anew by another process, with other numbers.
                return Ok(None);
            }
            let mut sums = ByWord::new();
            set.each_step(&connection, sql, range, |run, row| add_row(&mut sums, known, run, row))?;
            Ok(Some(sums))
        });
        let mut all = ByWord::new();
        for part in sums {
            for (word, sums) in part.ok()?? {
                all.entry(word).or_default().merge(sums);
            }
        }
        Some(all)
    }
}

/// Opens the file once more. While the first connection's transaction is open nobody can change what this one reads.
fn second_connection(path: &Path) -> Result<Connection> {
    // Each thread has its own, and a lock a column would take longer than the column.
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(PATIENCE)?;
    connection.pragma_update(None, "mmap_size", MMAP_BYTES)?;
    Ok(connection)
}

fn add_row(sums: &mut ByWord, known: Known, run: i64, row: &Row<'_>) -> Result<()> {
    let group = sums.entry(row.get(1)?).or_default();
    let counts: i64 = row.get(2)?;
    let status: Option<i64> = row.get(3)?;
    group.note_run(run);
    group.group.errors += u64::from(counts & counts::FAILURE != 0);
    group.group.unpriced_steps += u64::from(counts & counts::UNPRICED != 0);
    if counts & (counts::CALL | counts::TOOL_CALL) != 0 {
        let is_llm = counts & counts::CALL != 0 && row.get::<_, Option<i64>>(4)? == known.llm;
        group.count(match status {
            status if status == known.running => Outcome::Open,
            status if status == known.cancelled => Outcome::Cancelled,
            status if status == known.success => Outcome::Success,
            _ => Outcome::Failure,
        });
        group.group.llm_calls += u64::from(is_llm);
        group.group.tool_calls += u64::from(counts & counts::TOOL_CALL != 0);
        group.durations.extend(micros(row.get(5)?));
        group.first_tokens.extend(micros(row.get(6)?));
    }
    if counts & counts::TOKENS != 0 {
        group.add_tokens(tokens(row, 7)?);
    }
    if counts & counts::COST != 0 {
        group.add_cost(row.get(13)?);
    }
    add_caused(group, row.get(14)?, row.get(15)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RunStatus;
    use crate::store::files::database::stats::Totals;
    use crate::store::files::layout::Layout;

    fn shown(sums: ByWord) -> Vec<(Option<i64>, Group)> {
        let mut groups: Vec<_> = sums.into_iter().map(|(word, sums)| (word, sums.into_group(None))).collect();
        groups.sort_by_key(|(word, _)| *word);
        groups
    }

    #[test]
    fn several_threads_add_up_to_what_one_does() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("store"));
        layout.open_or_create().unwrap();
        let database = Database::open(&layout).unwrap();
        let filled = database.connection.execute_batch(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 24999)
             INSERT INTO steps (id, counts, kind, status, model, duration, first_token, prompt, completion, cost, step,
                name, started, span)
             SELECT ((1 + i / 10) << 24) + i % 10, iif(i % 3, 13, 45), 1, 2 + i % 4, nullif(i % 7, 0), i, nullif(i % 5, 2), i,
                nullif(i % 11, 4), nullif(i * 13, 26), 1, 1, i, i FROM n",
        );
        filled.unwrap();
        let totals = Totals {
            tokens: Default::default(),
            cost: None,
            unpriced: 0,
            duration: None,
            errors: 0,
            llm_calls: 0,
            tool_calls: 0,
            has_trouble: false,
        };
        // Every run but some.
        let runs: Vec<Chosen> = (1..=2_500)
            .filter(|id| id % 9 != 4)
            .map(|id| Chosen {
                id,
                name: None,
                started: Default::default(),
                status: RunStatus::Success,
                totals: totals.clone(),
            })
            .collect();
        assert!(runs.len() > FEW_RUNS);
        let sql = "SELECT id, model, counts, status, kind, duration, first_token, prompt, completion, total, cache_read, \
                   cache_write, reasoning, cost, duration, prompt FROM steps WHERE counts & 13 AND id >= ?1 AND id < ?2";
        let known = Known { success: Some(2), running: Some(5), cancelled: Some(6), llm: Some(1) };
        let _transaction = database.connection.unchecked_transaction().unwrap();
        let mut by_one = ByWord::new();
        for part in runs.chunks(FEW_RUNS) {
            let added = database.each_step(part, sql, |run, row| add_row(&mut by_one, known, run, row));
            added.unwrap();
        }
        let (by_one, by_all) = (shown(by_one), shown(database.sums_of_parts(&runs, sql, known).unwrap()));
        assert_eq!(by_one.len(), 7);
        assert_eq!(by_one.iter().map(|(_, group)| group.count).sum::<u64>(), runs.len() as u64 * 10);
        assert_eq!(by_one, by_all);
    }
}
