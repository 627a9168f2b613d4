//! What stands in the parentheses of an attribute.

use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Error, Expr, Ident, Result, Token, parenthesized};

/// The options of one attribute.
#[derive(Default)]
pub struct Options {
    /// In place of the function's name.
    pub name: Option<Expr>,
    /// Who serves the model.
    pub provider: Option<Expr>,
    /// The model that is asked.
    pub model: Option<Expr>,
    /// What an agent or a workflow may take.
    pub budget: Option<Expr>,
    /// Arguments that are not recorded.
    pub skip: Vec<Ident>,
    /// No argument is recorded.
    pub skip_all: bool,
    /// The result is not recorded.
    pub skip_output: bool,
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut options = Self::default();
        while !input.is_empty() {
            let key: Ident = input.parse()?;
            match key.to_string().as_str() {
                "name" => set(&mut options.name, &key, input)?,
                "provider" => set(&mut options.provider, &key, input)?,
                "model" => set(&mut options.model, &key, input)?,
                "budget" => set(&mut options.budget, &key, input)?,
                "skip" => {
                    let arguments;
                    parenthesized!(arguments in input);
                    options.skip.extend(Punctuated::<Ident, Token![,]>::parse_terminated(&arguments)?);
                }
                "skip_all" => options.skip_all = true,
                "skip_output" => options.skip_output = true,
                _ => {
                    let known = "name, provider, model, budget, skip(..), skip_all, skip_output";
                    return Err(Error::new(key.span(), format!("unknown option; there are {known}")));
                }
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(options)
    }
}

fn set(option: &mut Option<Expr>, key: &Ident, input: ParseStream<'_>) -> Result<()> {
    input.parse::<Token![=]>()?;
    match option.replace(input.parse()?) {
        Some(_) => Err(Error::new(key.span(), "given twice")),
        None => Ok(()),
    }
}
