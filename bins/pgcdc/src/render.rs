//! Tables and labels as plain text. Colour only on a terminal.

use std::io::{IsTerminal, Write};

/// Columns padded to their widest cell, two spaces between them, nothing behind the last.
pub(crate) fn columns(header: &[&str], rows: &[Vec<String>]) -> String {
    let header: Vec<String> = header.iter().map(|cell| (*cell).to_owned()).collect();
    let lines: Vec<&Vec<String>> = std::iter::once(&header).chain(rows).collect();
    let width = |at: usize| {
        lines.iter().filter_map(|line| line.get(at)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..header.len()).map(|at| width(at).unwrap_or(0)).collect();
    let mut out = String::new();
    for line in lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let joined = cells.collect::<Vec<_>>().join("  ");
        out.push_str(joined.trim_end());
        out.push('\n');
    }
    out
}

/// Labels with their values behind one column.
pub(crate) fn labels(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
    let line = |(label, value): &(&str, String)| {
        let label = format!("{label}:");
        format!("{label:<width$}  {value}\n", width = width + 1)
    };
    pairs.iter().map(line).collect()
}

/// Writes to stdout. A reader that has gone away (`| head`) is no failure of ours.
pub(crate) fn print(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// A value as one JSON document on stdout.
pub(crate) fn json(value: &serde_json::Value) -> std::io::Result<()> {
    print(&format!("{value:#}\n"))
}

/// The words PASS, WARN and FAIL in colour, where a person reads.
pub(crate) fn paint_verdicts(text: &str) -> String {
    if !std::io::stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some() {
        return text.to_owned();
    }
    let paint = |line: &str| {
        let colours = [("PASS", 32), ("WARN", 33), ("FAIL", 31)];
        let hit = colours.iter().find(|(word, _)| line.contains(&format!(" {word}  ")));
        match hit {
            Some((word, code)) => line.replacen(word, &format!("\u{1b}[{code}m{word}\u{1b}[0m"), 1),
            None => line.to_owned(),
        }
    };
    text.lines().map(|line| paint(line) + "\n").collect()
}

/// Bytes as people read them.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["public.größe".into(), "x".into(), String::new()]];
        assert_eq!(
            columns(&["TABLE", "STATUS", "TAGS"], &rows),
            "TABLE         STATUS  TAGS\npublic.größe  x\n"
        );
    }

    #[test]
    fn labels_stand_before_one_column() {
        let pairs = [("Slot", "a".to_owned()), ("Latest epoch", "7".to_owned())];
        assert_eq!(labels(&pairs), "Slot:          a\nLatest epoch:  7\n");
    }

    #[test]
    fn bytes_are_rounded() {
        for (count, text) in [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2_000_000, "2.0 MB")] {
            assert_eq!(bytes(count), text);
        }
    }
}
