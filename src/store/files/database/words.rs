//! The language of `runspan search`: words, phrases, prefixes, fields, AND, OR, NOT and parentheses.
//!
//! ```text
//! query  = all { "OR" all }
//! all    = part { [ "AND" ] part }
//! part   = "NOT" part | [ field ":" ] ( "(" query ")" | word [ "*" ] | '"' phrase '"' [ "*" ] )
//! ```
//!
//! Operators are upper case; in lower case they are words. What a user typed reaches the text index only as quoted
//! strings, one a leaf, so none of it is ever taken for the index's own syntax.

use std::fmt;

use super::text::{FIELDS, spaced};

/// Parentheses in each other.
const MAX_DEPTH: usize = 50;
/// Words and phrases in a query.
const MAX_LEAVES: usize = 100;

/// A question to the texts of runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// Runs with this in one of their texts.
    Leaf(Leaf),
    /// Runs that all of these have.
    All(Vec<Node>),
    /// Runs that one of these has.
    Any(Vec<Node>),
    /// Runs that the first has and the second has not.
    Without(Box<Node>, Box<Node>),
}

/// A word, a phrase, or the beginning of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    pub field: Option<&'static str>,
    pub text: String,
    pub is_prefix: bool,
}

/// Why a query cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryError {
    /// What is wrong.
    pub what: String,
    /// The byte at which it is.
    pub at: usize,
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for QueryError {}

impl Leaf {
    /// Returns the leaf in the syntax of FTS5: one quoted string, whatever is in it.
    pub fn expression(&self) -> String {
        let text = spaced(&self.text).replace('\0', " ").replace('"', "\"\"");
        let field = self.field.map(|field| format!("{field} : ")).unwrap_or_default();
        format!("{field}\"{text}\"{}", if self.is_prefix { " *" } else { "" })
    }
}

impl Node {
    /// Reads a query.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        let mut parser = Parser { text, at: 0, depth: 0, leaves: 0 };
        let node = parser.any(None)?;
        match parser.next() {
            None => Ok(node),
            Some(_) => Err(parser.error("there is no ( for this )")),
        }
    }

    /// Returns the leaves that a run may be found by, and not those that it must not have.
    pub fn wanted(&self) -> Vec<&Leaf> {
        match self {
            Self::Leaf(leaf) => vec![leaf],
            Self::All(nodes) | Self::Any(nodes) => nodes.iter().flat_map(Self::wanted).collect(),
            Self::Without(wanted, _) => wanted.wanted(),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    leaves: usize,
}

impl<'a> Parser<'a> {
    fn error(&self, what: impl Into<String>) -> QueryError {
        QueryError { what: what.into(), at: self.at }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Passes over blanks; returns the next character.
    fn next(&mut self) -> Option<char> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
        self.rest().chars().next()
    }

    /// Passes over an operator, if one stands here as a word of its own.
    fn takes(&mut self, operator: &str) -> bool {
        self.next();
        let is_here = self.rest().strip_prefix(operator).is_some_and(|behind| {
            behind.chars().next().is_none_or(|c| c.is_whitespace() || matches!(c, '(' | ')' | '"'))
        });
        self.at += if is_here { operator.len() } else { 0 };
        is_here
    }

    fn stands(&mut self, operator: &str) -> bool {
        let before = self.at;
        let is_here = self.takes(operator);
        self.at = before;
        self.next();
        is_here
    }

    fn any(&mut self, field: Option<&'static str>) -> Result<Node, QueryError> {
        let mut nodes = vec![self.all(field)?];
        while self.takes("OR") {
            nodes.push(self.all(field)?);
        }
        Ok(one_or(nodes, Node::Any))
    }

    fn all(&mut self, field: Option<&'static str>) -> Result<Node, QueryError> {
        let (mut wanted, mut unwanted, begin) = (Vec::new(), Vec::new(), {
            self.next();
            self.at
        });
        loop {
            let is_not = self.takes("NOT");
            let node = self.part(field)?;
            if is_not {
                unwanted.push(node)
            } else {
                wanted.push(node)
            }
            let is_and = self.takes("AND");
            let is_over = matches!(self.next(), None | Some(')')) || self.stands("OR");
            if is_over && !is_and {
                break;
            }
        }
        if wanted.is_empty() {
            let what = "NOT takes away from what is found, and here nothing is: put a word before it";
            return Err(QueryError { what: what.to_owned(), at: begin });
        }
        let wanted = one_or(wanted, Node::All);
        Ok(match unwanted.is_empty() {
            true => wanted,
            false => Node::Without(Box::new(wanted), Box::new(one_or(unwanted, Node::Any))),
        })
    }

    fn part(&mut self, field: Option<&'static str>) -> Result<Node, QueryError> {
        match self.next() {
            None => Err(self.error("a word is missing at the end")),
            Some(')') => Err(self.error("a word is missing before this )")),
            Some('(') => self.group(field),
            Some('"') => self.phrase(field),
            Some(_) => {
                for operator in ["AND", "OR", "NOT"] {
                    if self.stands(operator) {
                        return Err(
                            self.error(format!("a word is missing before {operator}; in quotes it is a word itself"))
                        );
                    }
                }
                self.word(field)
            }
        }
    }

    fn group(&mut self, field: Option<&'static str>) -> Result<Node, QueryError> {
        let open = self.at;
        if self.depth == MAX_DEPTH {
            return Err(self.error(format!("more than {MAX_DEPTH} parentheses in each other")));
        }
        self.at += 1;
        self.depth += 1;
        let node = self.any(field)?;
        self.depth -= 1;
        if self.next() != Some(')') {
            return Err(QueryError { what: "there is no ) for this (".to_owned(), at: open });
        }
        self.at += 1;
        Ok(node)
    }

    fn phrase(&mut self, field: Option<&'static str>) -> Result<Node, QueryError> {
        let begin = self.at;
        let inner = &self.text[begin + 1..];
        let Some(length) = inner.find('"') else {
            return Err(self.error("there is no second \" for this one"));
        };
        self.at = begin + length + 2;
        let is_prefix = self.rest().starts_with('*');
        self.at += usize::from(is_prefix);
        self.leaf(begin, field, &inner[..length], is_prefix)
    }

    fn word(&mut self, field: Option<&'static str>) -> Result<Node, QueryError> {
        let (begin, rest) = (self.at, self.rest());
        let end = rest.find(|c: char| c.is_whitespace() || matches!(c, '(' | ')' | '"')).unwrap_or(rest.len());
        let word = &rest[..end];
        if let Some((name, behind)) = word.split_once(':')
            && !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_')
            && !behind.starts_with("//")
        {
            let Some(known) = FIELDS.iter().find(|known| **known == name).copied() else {
                let what = format!(
                    "there is no field {name}; the fields are {}; text with a : goes in quotes",
                    FIELDS.join(", ")
                );
                return Err(QueryError { what, at: begin });
            };
            if field.is_some_and(|outer| outer != known) {
                return Err(self.error("one field within another finds nothing"));
            }
            self.at = begin + name.len() + 1;
            return match self.rest().chars().next() {
                Some('(') => self.group(Some(known)),
                Some('"') => self.phrase(Some(known)),
                Some(c) if !c.is_whitespace() && c != ')' => self.bare(Some(known), behind),
                _ => Err(self.error(format!("a word is missing after {name}:"))),
            };
        }
        self.bare(field, word)
    }

    fn bare(&mut self, field: Option<&'static str>, word: &str) -> Result<Node, QueryError> {
        let begin = self.at;
        self.at += word.len();
        let (text, is_prefix) = match word.strip_suffix('*') {
            Some(text) => (text, true),
            None => (word, false),
        };
        if let Some(star) = text.find('*') {
            let what = "a * may only stand at the end of a word; in quotes it is text".to_owned();
            return Err(QueryError { what, at: begin + star });
        }
        self.leaf(begin, field, text, is_prefix)
    }

    fn leaf(
        &mut self,
        at: usize,
        field: Option<&'static str>,
        text: &str,
        is_prefix: bool,
    ) -> Result<Node, QueryError> {
        if !text.contains(char::is_alphanumeric) {
            let what = "there is no letter and no digit in this: only words are searched for".to_owned();
            return Err(QueryError { what, at });
        }
        self.leaves += 1;
        if self.leaves > MAX_LEAVES {
            return Err(QueryError { what: format!("more than {MAX_LEAVES} words"), at });
        }
        Ok(Node::Leaf(Leaf { field, text: text.to_owned(), is_prefix }))
    }
}

fn one_or(mut nodes: Vec<Node>, several: fn(Vec<Node>) -> Node) -> Node {
    match nodes.pop() {
        Some(one) if nodes.is_empty() => one,
        Some(last) => {
            nodes.push(last);
            several(nodes)
        }
        None => several(nodes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(node: &Node) -> String {
        let list = |nodes: &[Node]| nodes.iter().map(shown).collect::<Vec<_>>().join(" ");
        match node {
            Node::Leaf(leaf) => leaf.expression(),
            Node::All(nodes) => format!("(all {})", list(nodes)),
            Node::Any(nodes) => format!("(any {})", list(nodes)),
            Node::Without(wanted, unwanted) => format!("({} without {})", shown(wanted), shown(unwanted)),
        }
    }

    #[test]
    fn queries_are_read_as_they_are_meant() {
        for (query, expected) in [
            ("timeout", "\"timeout\""),
            ("rate limit", "(all \"rate\" \"limit\")"),
            ("rate AND limit", "(all \"rate\" \"limit\")"),
            ("a b OR c", "(any (all \"a\" \"b\") \"c\")"),
            ("a (b OR c)", "(all \"a\" (any \"b\" \"c\"))"),
            ("a NOT b NOT \"c d\"", "(\"a\" without (any \"b\" \"c d\"))"),
            ("NOT b a", "(\"a\" without \"b\")"),
            ("\"no such file\"", "\"no such file\""),
            ("time* \"no such f\"*", "(all \"time\" * \"no such f\" *)"),
            (
                "error:timeout output:\"x y\" log:(a OR b*)",
                "(all error : \"timeout\" output : \"x y\" (any log : \"a\" log : \"b\" *))",
            ),
            ("and or not", "(all \"and\" \"or\" \"not\")"),
            ("ANDROID NOTE ORDER", "(all \"ANDROID\" \"NOTE\" \"ORDER\")"),
            ("https://example.com/a-b?c=d", "\"https://example.com/a-b?c=d\""),
            ("12:30 don't", "(all \"12:30\" \"don't\")"),
            ("東京", "\" 東  京 \""),
            ("((a))", "\"a\""),
            ("a\"b\"c", "(all \"a\" \"b\" \"c\")"),
        ] {
            assert_eq!(Node::parse(query).map(|node| shown(&node)).as_deref(), Ok(expected), "{query}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (query, at, what) in [
            ("", 0, "a word is missing at the end"),
            ("a \"b c", 2, "there is no second \" for this one"),
            ("(a b", 0, "there is no ) for this ("),
            ("a b)", 3, "there is no ( for this )"),
            ("a ()", 3, "a word is missing before this )"),
            ("a AND", 5, "a word is missing at the end"),
            ("OR a", 0, "a word is missing before OR; in quotes it is a word itself"),
            ("a OR AND b", 5, "a word is missing before AND; in quotes it is a word itself"),
            ("NOT a", 0, "NOT takes away from what is found, and here nothing is: put a word before it"),
            ("x OR NOT a", 5, "NOT takes away from what is found, and here nothing is: put a word before it"),
            (
                "a colour:red",
                2,
                "there is no field colour; the fields are input, output, arguments, result, error, log; text with a : goes in quotes",
            ),
            ("error: x", 6, "a word is missing after error:"),
            ("a *b", 2, "a * may only stand at the end of a word; in quotes it is text"),
            ("a --- b", 2, "there is no letter and no digit in this: only words are searched for"),
            ("a \"\"", 2, "there is no letter and no digit in this: only words are searched for"),
            ("input:(a output:b)", 9, "one field within another finds nothing"),
        ] {
            assert_eq!(Node::parse(query), Err(QueryError { what: what.to_owned(), at }), "{query}");
        }
        assert!(Node::parse(&"(".repeat(100_000)).unwrap_err().what.starts_with("more than 50 parentheses"));
        assert!(Node::parse(&"a ".repeat(101)).unwrap_err().what.starts_with("more than 100 words"));
    }

    proptest! {
        #[test]
        fn no_text_makes_syntax_of_the_index(query in "\\PC{0,40}|[ab \"*():{}^+,.\\-\u{0}ANDORT]{0,40}") {
            if let Ok(node) = Node::parse(&query) {
                let connection = rusqlite::Connection::open_in_memory().unwrap();
                connection.execute_batch("CREATE VIRTUAL TABLE t USING fts5(input, output, arguments, result, error, log)").unwrap();
                for leaf in node.wanted() {
                    let found: rusqlite::Result<i64> =
                        connection.query_row("SELECT count(*) FROM t WHERE t MATCH ?1", [leaf.expression()], |row| row.get(0));
                    prop_assert_eq!(found, Ok(0));
                    // One string, and nothing behind it but a star.
                    let inner = leaf.expression();
                    let inner = inner.trim_end_matches(" *");
                    let quoted = &inner[inner.find('"').unwrap() + 1..inner.len() - 1];
                    prop_assert!(!quoted.replace("\"\"", "").contains('"'));
                }
            }
        }
    }
}
