//! Prose in lines of a width.

/// Breaks `text` at spaces into lines of at most `width` columns, all but the first indented; a longer word has its own line.
pub(super) fn wrapped(text: &str, width: usize, indent: &str) -> String {
    let start = text.len() - text.trim_start().len();
    let mut wrapped = text[..start].to_owned();
    let mut column = start;
    for (at, word) in text.split_whitespace().enumerate() {
        let length = word.chars().count();
        if at > 0 && column + 1 + length > width {
            wrapped.push('\n');
            wrapped.push_str(indent);
            column = indent.len();
        } else if at > 0 {
            wrapped.push(' ');
            column += 1;
        }
        wrapped.push_str(word);
        column += length;
    }
    wrapped.push('\n');
    wrapped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_spaces_and_keep_their_indent() {
        assert_eq!(
            wrapped("  a bb ccc dddd", 8, "    "),
            "  a bb\n    ccc\n    dddd\n"
        );
        assert_eq!(wrapped("unbreakable", 4, ""), "unbreakable\n");
        assert_eq!(wrapped("", 4, ""), "\n");
    }
}
