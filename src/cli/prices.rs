//! `runspan prices`: what models cost, by the table that runs are priced with.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use runspan::model::{NanoUsd, UnixNanos};
use runspan::pipeline::cost::{ModelPrices, Pricer, ProviderPrices, Rates};
use runspan::store::files::layout::Layout;
use serde::Serialize;

use super::output::{DIM, YELLOW, count, money, safe};
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
        /// The moment, for prices that changed: RFC 3339, or 7d ago
        #[arg(long, value_name = "TIME", value_parser = parse_when)]
        at: Option<When>,
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
    per_request_usd: NanoUsd,
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
        PricesCommand::Lookup { model, provider, at } => {
            let at = at.map_or(session.now, |when| when.resolve(session.now));
            look_up(&mut pricer, model, provider.as_deref(), at, session)
        }
        PricesCommand::Version => match session.format {
            Format::Table => session.print(&format!("{}\n", Pricer::table_version())),
            _ => session.print_data(&serde_json::json!({"table": Pricer::table_version()})),
        },
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
    Pricer::with_own_prices("prices.json", json.as_str())
        .map_err(|error| Stop::failed(CODE_USE, format!("{}: {error}", file.display())))?;
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
        .filter_map(|model| pricer.look_up(Some(&provider.id), model, now).filter(|found| found.model_id == *model))
        .map(ModelLine::from)
        .collect();
    match session.format {
        Format::Table => print_models(&models, session),
        _ => session.print_data(&models),
    }
}

fn look_up(pricer: &mut Pricer, model: &str, provider: Option<&str>, at: UnixNanos, session: &mut Session<'_>) -> Done {
    let found = pricer.look_up(provider, model, at).or_else(|| {
        // `openai/gpt-4o`, as routers name models.
        let (provider, model) = model.split_once('/').filter(|_| provider.is_none())?;
        pricer.look_up(Some(provider), model, at)
    });
    let Some(found) = found else {
        let of = provider.map(|name| format!(" of {name:?}")).unwrap_or_default();
        let what = format!("no price for {model:?}{of} in {}", Pricer::table_version());
        return Err(
            Stop::failed(CODE_NO, what).hint("runs with it show no cost; runspan prices list shows what is known")
        );
    };
    let line = ModelLine::from(found);
    match session.format {
        Format::Table => print_models(&[line], session),
        _ => session.print_data(&line),
    }
}

fn print_models(models: &[ModelLine], session: &mut Session<'_>) -> Done {
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
        for rate in &model.rates {
            let is_first = rate.above_input_tokens == 0;
            let only_first = |text: &str| if is_first { Cell::new(text) } else { Cell::default() };
            let above = if is_first { String::new() } else { format!("> {}", count(rate.above_input_tokens)) };
            let request = if model.per_request_usd.0 == 0 { String::new() } else { money(model.per_request_usd) };
            table.row(vec![
                only_first(&model.provider).style(DIM),
                only_first(&model.model),
                Cell::new(above),
                Cell::new(price(rate.input)),
                Cell::new(price(rate.cache_read)),
                Cell::new(price(rate.cache_write)),
                Cell::new(price(rate.output)),
                only_first(&request),
            ]);
        }
    }
    let look = session.look;
    session.print(&table.render(look))?;
    print_footer(&format!("{UNIT}; table: {}", Pricer::table_version()), session)
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
    session.print(&format!("{}\n", look.paint(DIM, text)))
}
