//! Where programs are.

use std::ffi::OsStr;
use std::path::PathBuf;

/// The program of this name, as `consul`, in the folders of a search path, written as `PATH` is; the first that has one.
#[must_use]
pub fn find_program(name: &str, search_path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(search_path)
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_folder_that_has_it_counts() {
        let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let programs = [1, 2].map(|at| folders[at].path().join("consul"));
        let path = std::env::join_paths(folders.iter().map(tempfile::TempDir::path)).unwrap();
        assert_eq!(find_program("consul", &path), None);
        for program in &programs {
            std::fs::write(program, "").unwrap();
        }
        // A folder of that name is none.
        std::fs::create_dir(folders[0].path().join("consul")).unwrap();
        assert_eq!(find_program("consul", &path).as_ref(), Some(&programs[0]));
    }
}
