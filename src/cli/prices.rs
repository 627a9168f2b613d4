//! `runspan prices`: what models cost, by the table that runs are priced with.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use runspan::conventions::units;
use runspan::model::{NanoUsd, UnixNanos};
use runspan::pipeline::cost::{ModelPrices, Pricer, ProviderPrices, Rates};
use runspan::store::files::layout::Layout;
use serde::Serialize;

use super::output::{DIM, YELLOW, count, money, safe, wrapped};
use super::table::{Cell, Column, Table};
use super::time::{When, parse_when};
use super::{CODE_NO, CODE_USE, Done, Format, Session, Stop};

const UNIT: &str = "US dollars per million tokens";

/// What `prices` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runspan prices list --provider openai
  runspan prices lookup gpt-4o-mini
  runspan prices lookup us.anthropic.claude-sonnet-4-20250514-v1:0 --provider aws.bedrock")]
pub struct Args {
    #[command(subcommand)]
    command: PricesCommand,
}

#[derive(Debug, Subcommand)]
enum PricesCommand {
    /// List providers, or one provider's models with their prices
    List {
        /// Only this provider
        #[arg(long, value_name = "NAME")]
        provider: Option<String>,
    },
    /// Show what a model costs, by any name that a call may have
    Lookup {
        /// The model
        model: String,
        /// Who serves it; without it, the name of the model has to tell
        #[arg(long, value_name = "NAME")]
        provider: Option<String>,
        /// The moment, for prices that changed or hang on the hour: RFC 3339, or 7d ago
        #[arg(long, value_name = "TIME", value_parser = parse_when, allow_hyphen_values = true)]
        at: Option<When>,
        /// The tier it was served in: flex, priority, ..., or batch
        #[arg(long, value_name = "WORD")]
        tier: Option<String>,
    },
    /// Put prices of your own before the table's, for what this store records from now on
    Override {
        /// A JSON file in the form of the genai-prices table: an array of providers with their models
        #[arg(required_unless_present = "remove")]
        file: Option<PathBuf>,
        /// Go back to the table alone
        #[arg(long, conflicts_with = "file")]
        remove: bool,
    },
    /// Show name and version of the table
    Version,
}

/// A provider without its models' prices.
#[derive(Serialize)]
struct ProviderLine<'a> {
    provider: &'a str,
    name: &'a str,
    models: &'a [String],
}

/// A model's prices; amounts are in [`UNIT`].
#[derive(Serialize)]
struct ModelLine {
    provider: String,
    model: String,
    table: String,
    unit: &'static str,
    rates: Vec<RateLine>,
    others: Vec<OtherLine>,
    per_request_usd: NanoUsd,
}

/// What else has a price: so many of a unit for so many dollars.
#[derive(Serialize)]
struct OtherLine {
    unit: &'static str,
    per: u64,
    usd: NanoUsd,
}

#[derive(Serialize)]
struct RateLine {
    above_input_tokens: u64,
    input: NanoUsd,
    cache_read: NanoUsd,
    cache_write: NanoUsd,
    output: NanoUsd,
}

impl From<&Rates> for RateLine {
    fn from(rates: &Rates) -> Self {
        Self {
            above_input_tokens: rates.above_input_tokens,
            input: rates.input,
            cache_read: rates.cache_read,
            cache_write: rates.cache_write,
            output: rates.output,
        }
    }
}

impl From<ModelPrices> for ModelLine {
    fn from(prices: ModelPrices) -> Self {
        Self {
            rates: prices.rates.iter().map(RateLine::from).collect(),
            others: prices
                .others
                .iter()
                .map(|other| OtherLine { unit: other.unit, per: other.per, usd: other.price })
                .collect(),
            provider: prices.provider_id,
            model: prices.model_id,
            table: prices.table,
            unit: UNIT,
            per_request_usd: prices.per_request,
        }
    }
}

/// Prints prices.
pub fn run(args: &Args, session: &mut Session<'_>) -> Done {
    let layout = Layout::new(session.store_path().0);
    let (mut pricer, bad) = Pricer::of_store(&layout);
    if let Some(bad) = bad {
        let label = session.look.paint(YELLOW, "warning:").into_owned();
        session.remark(&format!("{label} {}", safe(&bad)));
    }
    match &args.command {
        PricesCommand::Override { file, remove: _ } => set_own_prices(file.as_deref(), &layout, session),
        PricesCommand::List { provider: None } => list_providers(&pricer, session),
        PricesCommand::List { provider: Some(provider) } => list_models(&mut pricer, provider, session),
        PricesCommand::Lookup { model, provider, at, tier } => {
            let at = at.map_or(session.now, |when| when.resolve(session.now));
            let found = find(&mut pricer, model, provider.as_deref(), at, tier.as_deref());
            if let (Some(found), Some(tier)) = (&found, tier.as_deref()) {
                check_tier(&mut pricer, found, tier, at)?;
            }
            look_up(found, model, provider.as_deref(), session)
        }
        PricesCommand::Version => print_version(pricer.has_own_prices(), &layout, session),
    }
}

fn print_version(has_own: bool, layout: &Layout, session: &mut Session<'_>) -> Done {
    let table = Pricer::table_version();
    let own = has_own.then(|| layout.prices_file().display().to_string());
    match (session.format, own) {
        (Format::Table, Some(own)) => session.print(&format!("{table}, after {}\n", safe(&own))),
        (Format::Table, None) => session.print(&format!("{table}\n")),
        (_, own) => session.print_data(&serde_json::json!({"table": table, "own_prices": own})),
    }
}

/// Keeps a file of prices in the store, once it is known to hold prices; without a file, removes what is kept.
fn set_own_prices(file: Option<&Path>, layout: &Layout, session: &mut Session<'_>) -> Done {
    let Some(file) = file else {
        layout.set_own_prices(None)?;
        return session.print("prices are those of the table\n");
    };
    let json = std::fs::read_to_string(file)
        .map_err(|error| Stop::failed(CODE_USE, format!("cannot read {}: {error}", file.display())))?;
    Pricer::with_own_prices(file.display().to_string(), json.as_str())
        .and_then(|_| Pricer::check_own_prices(file.display().to_string(), &json))
        .map_err(|error| Stop::failed(CODE_USE, error.to_string()))?;
    layout.open_or_create()?;
    layout.set_own_prices(Some(&json))?;
    session.print(&format!("{} goes before the table in {}\n", file.display(), layout.root().display()))
}

fn list_providers(pricer: &Pricer, session: &mut Session<'_>) -> Done {
    let providers = pricer.providers();
    if session.format != Format::Table {
        let lines: Vec<ProviderLine<'_>> = providers.iter().map(provider_line).collect();
        return session.print_data(&lines);
    }
    let mut table = Table::new(&[Column::new("PROVIDER", 0), Column::new("NAME", 1), Column::new("MODELS", 0).right()]);
    for provider in &providers {
        table.row(vec![
            Cell::new(&provider.id),
            Cell::new(&provider.name).style(DIM),
            Cell::new(provider.models.len().to_string()),
        ]);
    }
    let look = session.look;
    session.print(&table.render(look))?;
    print_footer(&format!("table: {}", Pricer::table_version()), session)
}

fn provider_line(provider: &ProviderPrices) -> ProviderLine<'_> {
    ProviderLine { provider: &provider.id, name: &provider.name, models: &provider.models }
}

fn list_models(pricer: &mut Pricer, wanted: &str, session: &mut Session<'_>) -> Done {
    let providers = pricer.providers();
    let Some(provider) = providers.into_iter().find(|provider| provider.id.eq_ignore_ascii_case(wanted)) else {
        return Err(Stop::failed(CODE_NO, format!("no provider {wanted:?} in {}", Pricer::table_version()))
            .hint("runspan prices list shows all of them"));
    };
    let now = session.now;
    let models: Vec<ModelLine> = provider
        .models
        .iter()
        // A model is looked up by its id, which some rules of the table give to another: that one is told once.
        .filter_map(|model| {
            pricer.look_up(Some(&provider.id), model, now, None).filter(|found| found.model_id == *model)
        })
        .map(ModelLine::from)
        .collect();
    match session.format {
        Format::Table => print_models(&models, session),
        _ => session.print_data(&models),
    }
}

/// Finds a model, also as `openai/gpt-4o`, as routers name models.
fn find(
    pricer: &mut Pricer,
    model: &str,
    provider: Option<&str>,
    at: UnixNanos,
    tier: Option<&str>,
) -> Option<ModelPrices> {
    pricer.look_up(provider, model, at, tier).or_else(|| {
        let (provider, model) = model.split_once('/').filter(|_| provider.is_none())?;
        pricer.look_up(Some(provider), model, at, tier)
    })
}

/// Refuses a tier that has no prices of its own: those of any call would look like its.
fn check_tier(pricer: &mut Pricer, found: &ModelPrices, tier: &str, at: UnixNanos) -> Done {
    let mut known = pricer.tiers(&found.provider_id, &found.model_id, at);
    known.retain(|word| !units::PLAIN_TIERS.contains(&word.as_str()));
    // The word `batch` is known in any case.
    let is_known = known.iter().any(|word| word == tier || (word == "batch" && tier.eq_ignore_ascii_case(word)));
    if is_known || units::PLAIN_TIERS.contains(&tier) {
        return Ok(());
    }
    let what = format!("no prices of a tier {tier:?} in {}", found.table);
    let those = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    Err(Stop::failed(CODE_NO, what)
        .hint(format!("tiers with prices of their own: {those}; a call in another has those of any call")))
}

fn look_up(found: Option<ModelPrices>, model: &str, provider: Option<&str>, session: &mut Session<'_>) -> Done {
    let Some(found) = found else {
        let of = provider.map(|name| format!(" of {name:?}")).unwrap_or_default();
        let what = format!("no price for {model:?}{of} in {}", Pricer::table_version());
        return Err(
            Stop::failed(CODE_NO, what).hint("runs with it show no cost; runspan prices list shows what is known")
        );
    };
    let line = ModelLine::from(found);
    match session.format {
        Format::Table => print_model(&line, session),
        _ => session.print_data(&line),
    }
}

/// Prints one model with everything that has a price.
fn print_model(model: &ModelLine, session: &mut Session<'_>) -> Done {
    let look = session.look;
    session.print(&rates_table(std::slice::from_ref(model)).render(look))?;
    if !model.others.is_empty() {
        let mut table = Table::new(&[
            Column::new("ALSO BILLED", 0),
            Column::new("PRICE", 0).right(),
            Column::new("FOR", 0).right(),
        ]);
        for other in &model.others {
            table.row(vec![Cell::new(other.unit), Cell::new(price(other.usd)), Cell::new(count(other.per))]);
        }
        session.print(&format!("\n{}", table.render(look)))?;
    }
    print_footer(&footer(&model.table), session)
}

fn print_models(models: &[ModelLine], session: &mut Session<'_>) -> Done {
    let look = session.look;
    session.print(&rates_table(models).render(look))?;
    print_footer(&footer(Pricer::table_version()), session)
}

fn footer(table: &str) -> String {
    format!("{UNIT}, where nothing else is said; table: {table}")
}

fn rates_table(models: &[ModelLine]) -> Table {
    let mut table = Table::new(&[
        Column::new("PROVIDER", 2),
        Column::new("MODEL", 0).shrinks_to(16),
        Column::new("INPUT TOKENS", 1),
        Column::new("INPUT", 0).right(),
        Column::new("CACHE READ", 1).right(),
        Column::new("CACHE WRITE", 1).right(),
        Column::new("OUTPUT", 0).right(),
        Column::new("REQUEST", 1).right(),
    ]);
    for model in models {
        let request = if model.per_request_usd.0 == 0 { String::new() } else { money(model.per_request_usd) };
        let head = |text: &str, is_first| if is_first { Cell::new(text) } else { Cell::default() };
        if model.rates.is_empty() {
            let none = || Cell::new("-").style(DIM);
            let named = [head(&model.provider, true).style(DIM), head(&model.model, true), Cell::default()];
            table.row(named.into_iter().chain([none(), none(), none(), none(), head(&request, true)]).collect());
        }
        for rate in &model.rates {
            let is_first = rate.above_input_tokens == 0;
            let above = if is_first { String::new() } else { format!("> {}", count(rate.above_input_tokens)) };
            table.row(vec![
                head(&model.provider, is_first).style(DIM),
                head(&model.model, is_first),
                Cell::new(above),
                Cell::new(price(rate.input)),
                Cell::new(price(rate.cache_read)),
                Cell::new(price(rate.cache_write)),
                Cell::new(price(rate.output)),
                head(&request, is_first),
            ]);
        }
    }
    table
}

/// Prices are short decimals already; all of one is shown.
fn price(amount: NanoUsd) -> String {
    let text = amount.to_string();
    match text.split_once('.') {
        Some((_, decimals)) if decimals.len() >= 2 => format!("${text}"),
        Some(_) => format!("${text}0"),
        None => format!("${text}.00"),
    }
}

fn print_footer(text: &str, session: &mut Session<'_>) -> Done {
    let look = session.look;
    session.print(&format!("{}\n", look.paint(DIM, &wrapped(text, look.width))))
}
