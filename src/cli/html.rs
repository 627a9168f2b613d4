//! Pages that stand alone: one file, no script, nothing loaded from anywhere.
//!
//! What stands in runs comes from programs and models that nobody vouches for. It comes into a page through [`text`] and
//! by no other way. Should that ever fail, the page's policy forbids scripts, forms, and every load.

use std::fmt::Write as _;

/// Colours follow what the reader's system prefers.
const STYLE: &str = include_str!("html.css");

/// Makes text fit for a page: markup is escaped, and characters that act or hide are shown as what they are.
pub fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 16);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            '\r' => {}
            c if super::output::is_unsafe(c) => {
                // Writing to a string cannot fail.
                let _ = write!(out, "<span class=\"odd\">\\u{{{:x}}}</span>", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// Makes text fit for an attribute or a title, where no markup can stand.
pub fn plain(content: &str) -> String {
    text(&super::output::safe(content))
}

/// Puts a page together; `title` is any text, `body` is markup.
pub fn page(title: &str, body: &str) -> String {
    let title = plain(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
         base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"referrer\" content=\"no-referrer\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_is_markup_and_nothing_hides() {
        assert_eq!(
            text("</script><b a='1' b=\"2\">&\u{202e}\u{0}\u{1b}x\ty\r\nz"),
            "&lt;/script&gt;&lt;b a=&#39;1&#39; b=&quot;2&quot;&gt;&amp;<span class=\"odd\">\\u{202e}</span>\
             <span class=\"odd\">\\u{0}</span><span class=\"odd\">\\u{1b}</span>x\ty\nz"
        );
        assert_eq!(plain("a\u{202e}\nb"), "a\\u{202e}\\nb");
    }
}
