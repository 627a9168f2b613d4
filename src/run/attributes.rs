//! What the attribute macros expand to. Nothing here is for people, and it may change in any release.
//!
//! An argument or a result may be of any type: what it implements is found out by method resolution, which prefers the
//! trait that is implemented for more references. `(&&&Show(&value)).__runspan_text()` is JSON where the type is
//! `Serialize`, else what `Debug` prints, else the type's name.

use std::any::type_name;
use std::convert::Infallible;
use std::error::Error;
use std::fmt::{Debug, Display};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use serde::Serialize;
use tracing::Instrument;
use tracing::instrument::Instrumented;

pub use super::content::{Arguments, Text};
use super::current::{CurrentStep, current};
use super::spans::What;
use super::step::Step;
use super::tell::{Tell, error_class};
use super::wait::Checkpoint;
use crate::model::budget::{Budget, Spent};
use crate::sources::desk::is_any_paused;
use crate::sources::guarded::{printed, said};

/// What an attribute makes of a function.
#[derive(Clone, Copy, Debug)]
pub enum Kind<'a> {
    Agent(&'a str),
    Workflow(&'a str),
    Tool(&'a str),
    Task(&'a str),
    Llm { name: Option<&'a str>, provider: &'a str, model: &'a str },
}

/// Begins the step of a call. Arguments are formatted only where somebody listens. `budget`: what an agent or a workflow may take.
pub fn begin(kind: Kind<'_>, budget: Option<Budget>, arguments: impl FnOnce(Arguments) -> Arguments) -> Step {
    let bound = budget.map(|budget| budget.to_json());
    let bound = bound.as_deref();
    let what = match kind {
        Kind::Agent(name) => What::Agent { name, budget: bound },
        Kind::Workflow(name) => What::Workflow { name, budget: bound },
        Kind::Tool(name) => What::Tool { name },
        Kind::Task(name) => What::Task { name },
        Kind::Llm { provider, model, .. } => What::Llm { provider, model },
    };
    let mut step = Step::here(what);
    if let Some(budget) = budget {
        step.bound(budget, Spent::default());
    }
    if let Kind::Llm { name: Some(name), .. } = kind {
        step.put("otel.name", &name);
    }
    if step.is_recorded()
        && let Some(text) = arguments(Arguments::default()).into_text()
    {
        step.put_input(&text);
    }
    step
}

/// Holds an asynchronous function before it begins, for as long as the run around it pauses.
pub fn boundary() -> Boundary {
    if !is_any_paused() {
        return Boundary { held: None };
    }
    let step = current();
    Boundary { held: Some((Checkpoint::new(step.place()), step)) }
}

/// Made by [`boundary`].
#[derive(Debug)]
pub struct Boundary {
    /// With the step that says so while it lasts.
    held: Option<(Checkpoint<'static>, CurrentStep)>,
}

impl Future for Boundary {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.held {
            // A run that is to end is told by what its code asks for that.
            Some((checkpoint, _)) => Pin::new(checkpoint).poll(cx).map(drop),
            None => Poll::Ready(()),
        }
    }
}

/// Calls the body of a function inside its step.
pub fn call<T>(step: &Step, body: impl FnOnce() -> T) -> T {
    step.in_scope(body)
}

/// Puts the body of an asynchronous function into its step.
pub fn within<F: Future>(step: &Step, body: F) -> Instrumented<F> {
    body.instrument(step.span())
}

/// Ends the step of a call that returned.
pub fn finish(step: Step, output: impl FnOnce() -> Option<Text>) {
    if step.is_recorded()
        && let Some(text) = output()
    {
        step.put_output(&text);
    }
    step.finish();
}

/// Ends the step of a call that returned an error.
pub fn fail<E: ?Sized>(step: Step, _: &E, message: impl FnOnce() -> String) {
    if step.is_recorded() {
        step.fail_as(&error_class::<E>(), &message());
    } else {
        step.finish();
    }
}

/// A value to be shown.
#[derive(Debug)]
pub struct Show<'a, T: ?Sized>(pub &'a T);

/// Shows values as JSON.
pub trait AsJson {
    fn __runspan_text(&self) -> Option<Text>;
}

impl<T: Serialize + ?Sized> AsJson for &&Show<'_, T> {
    fn __runspan_text(&self) -> Option<Text> {
        Text::of(self.0)
    }
}

/// Shows values as `Debug` prints them.
pub trait AsDebug {
    fn __runspan_text(&self) -> Option<Text>;
}

impl<T: Debug + ?Sized> AsDebug for &Show<'_, T> {
    fn __runspan_text(&self) -> Option<Text> {
        Text::of_debug(self.0)
    }
}

/// Shows the type of values that cannot be shown.
pub trait AsType {
    fn __runspan_text(&self) -> Option<Text>;
}

impl<T: ?Sized> AsType for Show<'_, T> {
    fn __runspan_text(&self) -> Option<Text> {
        Text::of(&format!("<{}>", type_name::<T>()))
    }
}

/// Says errors with their causes.
pub trait ErrorWithCauses {
    fn __runspan_error(&self) -> String;
}

impl<E: Error + ?Sized> ErrorWithCauses for &&&&Show<'_, E> {
    fn __runspan_error(&self) -> String {
        said(self.0)
    }
}

/// Says boxed errors with their causes; a box of an error is no `Error` itself.
pub trait BoxedErrorWithCauses {
    fn __runspan_error(&self) -> String;
}

impl BoxedErrorWithCauses for &&&Show<'_, Box<dyn Error + '_>> {
    fn __runspan_error(&self) -> String {
        said(&**self.0)
    }
}

impl BoxedErrorWithCauses for &&&Show<'_, Box<dyn Error + Send + '_>> {
    fn __runspan_error(&self) -> String {
        said(&**self.0)
    }
}

impl BoxedErrorWithCauses for &&&Show<'_, Box<dyn Error + Send + Sync + '_>> {
    fn __runspan_error(&self) -> String {
        said(&**self.0)
    }
}

/// Says what can be displayed.
pub trait ErrorAsDisplay {
    fn __runspan_error(&self) -> String;
}

impl<E: Display + ?Sized> ErrorAsDisplay for &&Show<'_, E> {
    fn __runspan_error(&self) -> String {
        // The alternate form of `anyhow` and its like has the causes.
        printed(|| format!("{:#}", self.0))
    }
}

/// Says what can be printed for debugging.
pub trait ErrorAsDebug {
    fn __runspan_error(&self) -> String;
}

impl<E: Debug + ?Sized> ErrorAsDebug for &Show<'_, E> {
    fn __runspan_error(&self) -> String {
        printed(|| format!("{:?}", self.0))
    }
}

/// Says the type of all other errors.
pub trait ErrorAsType {
    fn __runspan_error(&self) -> String;
}

impl<E: ?Sized> ErrorAsType for Show<'_, E> {
    fn __runspan_error(&self) -> String {
        format!("<{}>", type_name::<E>())
    }
}

/// A result to be told apart.
#[derive(Debug)]
pub struct Split<'a, T: ?Sized>(pub &'a T);

/// Tells a `Result` apart, under whatever name it goes.
pub trait SplitResult<'a> {
    type Value;
    type Error;
    fn __runspan_split(&self) -> Result<&'a Self::Value, &'a Self::Error>;
}

impl<'a, T, E> SplitResult<'a> for &Split<'a, Result<T, E>> {
    type Value = T;
    type Error = E;
    fn __runspan_split(&self) -> Result<&'a T, &'a E> {
        self.0.as_ref()
    }
}

/// Takes all else for a success.
pub trait SplitOther<'a> {
    type Value: ?Sized;
    fn __runspan_split(&self) -> Result<&'a Self::Value, &'a Infallible>;
}

impl<'a, T: ?Sized> SplitOther<'a> for Split<'a, T> {
    type Value = T;
    fn __runspan_split(&self) -> Result<&'a T, &'a Infallible> {
        Ok(self.0)
    }
}
