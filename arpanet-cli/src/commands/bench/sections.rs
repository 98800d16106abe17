//! Pages that have a marked part which a program writes.

use std::path::Path;

use arpanet_core::{Error, ErrorKind, Result};

/// Writes the parts of a file between their marks anew: `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`. What is around them
/// stays.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for a file that has no such mark, or one that does not end.
pub(super) fn write(file: &Path, parts: &[(&str, String)]) -> Result<()> {
    let mut text = std::fs::read_to_string(file).map_err(|source| unreadable(file, source))?;
    let mut any = false;
    for (name, part) in parts {
        if let Some(new) = replaced(&text, name, part) {
            (text, any) = (new, true);
        }
    }
    if !any {
        return Err(unmarked(file));
    }
    std::fs::write(file, text).map_err(|source| {
        let message = format!("{} can't be written", file.display());
        Error::new(ErrorKind::Internal, message).with_source(source)
    })
}

/// Refuses a file that [`write()`] would refuse.
///
/// # Errors
/// As there.
pub(super) fn check(file: &Path) -> Result<()> {
    let text = std::fs::read_to_string(file).map_err(|source| unreadable(file, source))?;
    let marked = ["table", "chart"];
    let any = marked
        .iter()
        .any(|name| replaced(&text, name, "").is_some());
    if any { Ok(()) } else { Err(unmarked(file)) }
}

fn unreadable(file: &Path, source: std::io::Error) -> Error {
    let message = format!("{} can't be read", file.display());
    Error::new(ErrorKind::InvalidInput, message).with_source(source)
}

fn unmarked(file: &Path) -> Error {
    let message = format!("{} has no part that is marked", file.display());
    Error::new(ErrorKind::InvalidInput, message).with_hint(
        "put a line <!-- bench:table --> and a line <!-- /bench:table --> into it, or chart for table",
    )
}

/// The text with this part in the place of that which has its marks; `None` where there are none.
fn replaced(text: &str, name: &str, part: &str) -> Option<String> {
    let (begin, end) = (
        format!("<!-- bench:{name} -->\n"),
        format!("<!-- /bench:{name} -->"),
    );
    let (before, rest) = text.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    let part = part.trim_end();
    Some(format!("{before}{begin}\n{part}\n\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# A\n<!-- bench:table -->\nold\n<!-- /bench:table -->\nend\n";

    #[test]
    fn only_what_is_marked_is_written() {
        let new = replaced(PAGE, "table", "new\n").unwrap();
        assert_eq!(
            new,
            "# A\n<!-- bench:table -->\n\nnew\n\n<!-- /bench:table -->\nend\n"
        );
        assert_eq!(replaced(&new, "table", "new\n").unwrap(), new);
        assert_eq!(replaced(PAGE, "chart", "new"), None);
        assert_eq!(
            replaced("<!-- bench:table -->\nno end", "table", "new"),
            None
        );
    }

    #[test]
    fn a_file_without_marks_is_refused_and_left() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("page.md");
        std::fs::write(&file, "# A\n").unwrap();
        let error = write(&file, &[("table", "new".to_owned())]).unwrap_err();
        assert!(
            error.to_string().contains("no part that is marked"),
            "{error}"
        );
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "# A\n");
        std::fs::write(&file, PAGE).unwrap();
        write(
            &file,
            &[("chart", "c".to_owned()), ("table", "t".to_owned())],
        )
        .unwrap();
        assert!(
            std::fs::read_to_string(&file)
                .unwrap()
                .contains("\n\nt\n\n")
        );
    }
}
