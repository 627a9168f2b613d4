//! The user's own prices, and what becomes of them while a store is open.

use std::sync::Arc;
use std::time::{Duration, Instant};

use genai_prices::PriceRequest;

use super::table::{self, Section};
use super::{Call, Priced, PricesError, price_request};
use crate::error::with_causes;
use crate::fs::Stat;
use crate::sources::fork::hold_off;
use crate::store::StoreError;
use crate::store::files::layout::Layout;

/// How often it is looked whether they have changed, while calls are priced.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct OwnPrices {
    name: String,
    pub text: String,
    section: Section,
    /// Ids of its providers.
    pub providers: Vec<String>,
}

impl OwnPrices {
    /// Reads a file of that name.
    pub fn read(name: String, text: String) -> Result<Self, PricesError> {
        let section = Section::decode(&text).map_err(|error| with_causes(&error));
        match section.and_then(|section| table::check(&text).map(|()| section)) {
            Ok(section) => {
                let providers = table::listings_of(&text).map(|listing| listing.id).collect();
                Ok(Self { name, text, section, providers })
            }
            Err(why) => Err(PricesError { name, why }),
        }
    }

    /// Prices a call by a provider's id, else by the address, else by what the file says of models' names.
    pub fn price(&self, call: &Call<'_>, provider: Option<&str>) -> Option<Priced> {
        let request = price_request(call, provider);
        let by = |request: PriceRequest<'_>| {
            let price = self.section.calculator.calculate(&request).ok()?;
            Some(Priced::by(&self.name, &self.section, call.usage, price))
        };
        let url = call.address.filter(|_| provider.is_none()).map(|address| format!("https://{address}"));
        url.as_deref().and_then(|url| by(request.clone().with_provider_api_url(url))).or_else(|| by(request))
    }
}

/// Prices, or none; or why they cannot be read, with the file.
type Read = Result<Option<Arc<OwnPrices>>, String>;

/// Looks after the prices of a store.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    layout: Layout,
    /// How the file stood when it was read.
    seen: Option<Stat>,
    looked: Instant,
}

impl Watch {
    /// Begins with what there is.
    pub fn begin(layout: &Layout) -> (Self, Read) {
        let watch = Self { layout: layout.clone(), seen: stat(layout), looked: Instant::now() };
        let read = watch.read();
        (watch, read)
    }

    /// Returns what there is now, if it has changed since the last look; looks once in a while.
    pub fn changed(&mut self) -> Option<Read> {
        if self.looked.elapsed() < LOOK {
            return None;
        }
        self.look()
    }

    fn look(&mut self) -> Option<Read> {
        self.looked = Instant::now();
        let now = stat(&self.layout);
        if now == self.seen {
            return None;
        }
        match self.json() {
            // It is asked for again at the next look.
            Err(error) if error.is_out_of_resources() => None,
            json => {
                self.seen = now;
                Some(json.map_err(|error| error.to_string()).and_then(|json| self.understood(json)))
            }
        }
    }

    fn json(&self) -> Result<Option<String>, StoreError> {
        // A child that is forked meanwhile would hold the file open.
        let _held_off = hold_off();
        self.layout.own_prices()
    }

    fn read(&self) -> Read {
        self.json().map_err(|error| error.to_string()).and_then(|json| self.understood(json))
    }

    fn understood(&self, json: Option<String>) -> Read {
        let Some(json) = json else { return Ok(None) };
        let read = OwnPrices::read("prices.json".to_owned(), json);
        let read = read.map_err(|error| format!("{}: {error}", self.layout.prices_file().display()))?;
        Ok(Some(Arc::new(read)))
    }
}

fn stat(layout: &Layout) -> Option<Stat> {
    layout.fs().stat(&layout.prices_file()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Tokens, UnixNanos};
    use crate::pipeline::cost::Pricer;

    #[test]
    fn prices_that_change_while_a_store_is_open_hold_from_then_on() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("s"));
        layout.open_or_create().unwrap();
        let (mut pricer, bad) = Pricer::of_store(&layout);
        assert_eq!(bad, None);
        let usage = Tokens { prompt: Some(1_000_000), completion: Some(0), ..Tokens::default() };
        let mut cost = |is_time: bool| {
            let watch = pricer.watch.as_mut().unwrap();
            watch.looked = Instant::now().checked_sub(if is_time { LOOK } else { Duration::ZERO }).unwrap();
            let quote = pricer.quote(Some("openai"), "own-1", &usage, UnixNanos(1_767_693_600_000_000_000));
            quote.map(|quote| quote.cost.to_string())
        };
        let own = |price: &str| {
            let models =
                format!(r#"[{{"id": "own-1", "match": {{"equals": "own-1"}}, "prices": {{"input_mtok": {price}}}}}]"#);
            format!(r#"[{{"id": "openai", "name": "Ours", "api_pattern": "x", "models": {models}}}]"#)
        };
        assert_eq!(cost(true), None);
        layout.set_own_prices(Some(&own("7"))).unwrap();
        assert_eq!(cost(false), None, "it is looked once in a while");
        assert_eq!(cost(true).as_deref(), Some("7"));
        layout.set_own_prices(Some(&own("8"))).unwrap();
        assert_eq!(cost(true).as_deref(), Some("8"));
        // What cannot be read costs nothing that was there.
        std::fs::write(layout.prices_file(), "[{").unwrap();
        assert_eq!(cost(true).as_deref(), Some("8"));
        layout.set_own_prices(None).unwrap();
        assert_eq!(cost(true), None);
    }
}
