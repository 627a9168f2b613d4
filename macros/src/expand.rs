//! The function around the function: begin a step, run the body inside it, end it by what came back.
//!
//! Names that are ours have the hygiene of a macro's own, so a body can neither see nor hide them, and everything that
//! is called goes by its full path.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::visit::Visit;
use syn::visit_mut::VisitMut;
use syn::{
    Block, Error, Expr, ExprAsync, FnArg, Ident, ItemFn, Pat, Result, ReturnType, Signature, Stmt, Type,
    parse_macro_input, parse_quote,
};

use crate::options::Options;

/// Which attribute it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Agent,
    Workflow,
    Llm,
    Tool,
    Step,
}

/// Expands one attribute. On a wrong use the function stays as it was, beside the error.
pub fn attribute(
    kind: Kind,
    options: proc_macro::TokenStream,
    function: proc_macro::TokenStream,
) -> proc_macro::TokenStream {
    let original = TokenStream::from(function.clone());
    let options = match syn::parse::<Options>(options) {
        Ok(options) => options,
        Err(error) => return beside(&error, &original),
    };
    let function = parse_macro_input!(function as ItemFn);
    match check(kind, &options, &function.sig) {
        Ok(()) => expand(kind, &options, function).into(),
        Err(error) => beside(&error, &original),
    }
}

fn beside(error: &Error, original: &TokenStream) -> proc_macro::TokenStream {
    let error = error.to_compile_error();
    quote!(#error #original).into()
}

fn check(kind: Kind, options: &Options, signature: &Signature) -> Result<()> {
    if let Some(constant) = &signature.constness {
        return Err(Error::new(constant.span(), "a const function cannot be recorded"));
    }
    let arguments = arguments(signature);
    if let Some(unknown) = options.skip.iter().find(|name| !arguments.contains(name)) {
        return Err(Error::new(unknown.span(), "there is no argument of this name"));
    }
    if let Some(misplaced) = options.budget.as_ref().filter(|_| !matches!(kind, Kind::Agent | Kind::Workflow)) {
        return Err(Error::new(misplaced.span(), "only `#[runspan::agent]` and `#[runspan::workflow]` have a budget"));
    }
    match options.provider.as_ref().or(options.model.as_ref()) {
        Some(misplaced) if kind != Kind::Llm => {
            Err(Error::new(misplaced.span(), "only `#[runspan::llm]` has a provider and a model"))
        }
        _ => Ok(()),
    }
}

fn expand(kind: Kind, options: &Options, function: ItemFn) -> TokenStream {
    let ItemFn { attrs, vis, sig, block } = function;
    let begin = begin(kind, options, &sig);
    let body = if sig.asyncness.is_some() {
        let result = return_type(&declared(&sig.output));
        within(&begin, options, &quote!(#result #block))
    } else if let Some((before, boxed, around)) = boxed_future(&block) {
        // What `async_trait` makes: the work is in the future, not in the function that returns it.
        let (moved, inner) = (&boxed.capture, &boxed.block);
        let result = output_of(&sig.output).map(|of| return_type(&of));
        let body = within(&begin, options, &quote!(#result #inner));
        quote!({ #(#before)* #around(async #moved #body) })
    } else {
        around_call(&begin, options, &sig.output, &block)
    };
    quote!(#(#attrs)* #vis #sig #body)
}

/// Makes the expression that begins the step.
fn begin(kind: Kind, options: &Options, signature: &Signature) -> TokenStream {
    let text = |value: &Expr| quote!(::core::convert::AsRef::<str>::as_ref(&(#value)));
    let given = options.name.as_ref().map(text);
    let own = signature.ident.to_string();
    let own = own.trim_start_matches("r#");
    let name = given.clone().unwrap_or_else(|| quote!(#own));
    let kind = match kind {
        Kind::Agent => quote!(Agent(#name)),
        Kind::Workflow => quote!(Workflow(#name)),
        Kind::Tool => quote!(Tool(#name)),
        Kind::Step => quote!(Task(#name)),
        Kind::Llm => {
            let name = given.map_or_else(
                || quote!(::core::option::Option::None),
                |given| quote!(::core::option::Option::Some(#given)),
            );
            let [provider, model] =
                [&options.provider, &options.model].map(|value| value.as_ref().map_or_else(|| quote!(""), text));
            quote!(Llm { name: #name, provider: #provider, model: #model })
        }
    };
    let budget = options.budget.as_ref().map_or_else(
        || quote!(::core::option::Option::None),
        |budget| quote!(::core::option::Option::<::runspan::Budget>::Some(#budget)),
    );
    let collected = ours("arguments");
    let arguments = arguments(signature);
    let recorded = arguments.iter().filter(|name| !options.skip_all && !options.skip.contains(name)).map(|name| {
        let key = name.to_string();
        let key = key.trim_start_matches("r#");
        quote!(.with(#key, (&&&::runspan::__private::Show(&#name)).__runspan_text()))
    });
    quote! {
        ::runspan::__private::begin(::runspan::__private::Kind::#kind, #budget, |#collected| {
            #[allow(unused_imports)]
            use ::runspan::__private::{AsDebug as _, AsJson as _, AsType as _};
            #collected #(#recorded)*
        })
    }
}

/// Runs an asynchronous body inside the step.
fn within(begin: &TokenStream, options: &Options, body: &TokenStream) -> TokenStream {
    let (step, result, end) = (ours("step"), ours("result"), end(options));
    quote!({
        ::runspan::__private::boundary().await;
        let #step = #begin;
        // A body of one expression on one line is in braces of its own here, which its author cannot take away.
        #[allow(clippy::let_unit_value, unreachable_code, unused_braces)]
        let #result = ::runspan::__private::within(&#step, async move { #body }).await;
        #end
    })
}

/// Runs a body inside the step.
fn around_call(begin: &TokenStream, options: &Options, output: &ReturnType, block: &Block) -> TokenStream {
    let (step, result, end) = (ours("step"), ours("result"), end(options));
    let output = without_impl(&declared(output));
    quote!({
        let #step = #begin;
        #[allow(clippy::let_unit_value, clippy::unused_unit, unreachable_code)]
        let #result = ::runspan::__private::call(&#step, move || -> #output #block);
        #end
    })
}

/// Ends the step by what came back, and returns it.
fn end(options: &Options) -> TokenStream {
    let (step, result, value, error) = (ours("step"), ours("result"), ours("value"), ours("error"));
    let shown = if options.skip_output {
        quote!(::core::option::Option::None)
    } else {
        quote!((&&&::runspan::__private::Show(#value)).__runspan_text())
    };
    let used = options.skip_output.then(|| quote!(let _ = #value;));
    quote! {
        #[allow(unused_imports, unreachable_code)]
        {
            use ::runspan::__private::{
                AsDebug as _, AsJson as _, AsType as _, BoxedErrorWithCauses as _, ErrorAsDebug as _,
                ErrorAsDisplay as _, ErrorAsType as _, ErrorWithCauses as _, SplitOther as _, SplitResult as _,
            };
            match (&&::runspan::__private::Split(&#result)).__runspan_split() {
                ::core::result::Result::Ok(#value) => {
                    #used
                    ::runspan::__private::finish(#step, || #shown);
                }
                ::core::result::Result::Err(#error) => {
                    ::runspan::__private::fail(#step, #error, || {
                        (&&&&&::runspan::__private::Show(#error)).__runspan_error()
                    });
                }
            }
        }
        #result
    }
}

/// Returns the declared type of what a function returns.
fn declared(output: &ReturnType) -> Type {
    match output {
        ReturnType::Default => parse_quote!(()),
        ReturnType::Type(_, of) => (**of).clone(),
    }
}

/// Finds the output of a boxed future's type: `Output = X`.
fn output_of(output: &ReturnType) -> Option<Type> {
    struct Find(Option<Type>);
    impl<'a> Visit<'a> for Find {
        fn visit_assoc_type(&mut self, member: &'a syn::AssocType) {
            if self.0.is_none() && member.ident == "Output" {
                self.0 = Some(member.ty.clone());
            }
        }
    }
    let mut find = Find(None);
    find.visit_return_type(output);
    find.0
}

/// Tells the compiler what an `async` block returns, which cannot be written down: by a return that is never reached.
fn return_type(of: &Type) -> TokenStream {
    let (of, never) = (without_impl(of), ours("never"));
    quote_spanned! {of.span()=>
        #[allow(unreachable_code, clippy::all)]
        if false {
            let #never: #of = loop {};
            return #never;
        }
    }
}

/// Replaces `impl Trait` by what is to be inferred.
fn without_impl(of: &Type) -> Type {
    struct Erase;
    impl VisitMut for Erase {
        fn visit_type_mut(&mut self, of: &mut Type) {
            if matches!(of, Type::ImplTrait(_)) {
                *of = Type::Infer(syn::TypeInfer { underscore_token: syn::Token![_](of.span()) });
            } else {
                syn::visit_mut::visit_type_mut(self, of);
            }
        }
    }
    let mut of = of.clone();
    Erase.visit_type_mut(&mut of);
    of
}

/// Takes a body apart that ends in `Box::pin(async move { .. })`: what is before, the block, and the path of `pin`.
fn boxed_future(block: &Block) -> Option<(&[Stmt], &ExprAsync, &Expr)> {
    let (Stmt::Expr(Expr::Call(call), None), before) = block.stmts.split_last()? else { return None };
    let Expr::Path(path) = &*call.func else { return None };
    let mut names = path.path.segments.iter().rev().map(|segment| segment.ident.to_string());
    let is_pin = names.next()? == "pin" && names.next()? == "Box";
    match call.args.first()? {
        Expr::Async(boxed) if is_pin && call.args.len() == 1 => Some((before, boxed, &call.func)),
        _ => None,
    }
}

/// Returns the names that the arguments bind, `self` left out.
fn arguments(signature: &Signature) -> Vec<Ident> {
    struct Names(Vec<Ident>);
    impl<'a> Visit<'a> for Names {
        fn visit_pat_ident(&mut self, name: &'a syn::PatIdent) {
            self.0.push(name.ident.clone());
            syn::visit::visit_pat_ident(self, name);
        }
    }
    let mut names = Names(Vec::new());
    let patterns = signature.inputs.iter().filter_map(|argument| match argument {
        FnArg::Typed(argument) => Some(&*argument.pat),
        FnArg::Receiver(_) => None,
    });
    patterns.for_each(|pattern: &Pat| names.visit_pat(pattern));
    // A pattern of a constant looks like a name.
    names.0.retain(|name| !name.to_string().chars().next().is_some_and(char::is_uppercase));
    names.0
}

/// Makes a name that only we can say.
fn ours(name: &str) -> Ident {
    Ident::new(&format!("__runspan_{name}"), Span::mixed_site())
}
