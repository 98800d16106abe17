//! What a first start leaves on the disk, so that one that failed can leave nothing.

use std::path::PathBuf;

use crate::paths::Paths;

/// Files and folders that were not there before the start.
#[derive(Debug)]
pub(super) struct Traces(Vec<PathBuf>);

impl Traces {
    /// What the agent makes.
    pub(super) fn of_agent(paths: &Paths) -> Self {
        Self::new([
            paths.identity(),
            paths.gossip(),
            paths.ledger(),
            paths.driver(),
            paths.driver_journal(),
            paths.docker_networks(),
            paths.consul(),
            paths.consul_socket(),
            paths.weave(),
            paths.weave_socket(),
            paths.containers().join(".lock"),
            paths.containers(),
        ])
    }

    /// What whoever starts it makes; the folders come last.
    pub(super) fn of_launch(paths: &Paths) -> Self {
        Self::new([
            paths.log(),
            paths.lock(),
            paths.state().to_owned(),
            paths.run().to_owned(),
        ])
    }

    fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self(
            paths
                .into_iter()
                .filter(|path| path.symlink_metadata().is_err())
                .collect(),
        )
    }

    /// Removes them, but no folder with something else in it, and no ledger that still says what to undo.
    pub(super) fn remove(self, paths: &Paths) {
        for path in self.0 {
            let Ok(found) = path.symlink_metadata() else {
                continue;
            };
            let removed = if path == paths.consul() {
                // All of it is consul's, which was ended.
                std::fs::remove_dir_all(&path)
            } else if found.is_dir() {
                std::fs::remove_dir(&path)
            } else if path == paths.ledger() && found.len() > 0 {
                continue;
            } else {
                std::fs::remove_file(&path)
            };
            if let Err(error) = removed {
                tracing::debug!(path = %path.display(), %error, "left behind by a start that failed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_not_there_before_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path().join("state"), folder.path().join("run"));
        let launch = Traces::of_launch(&paths);
        std::fs::create_dir_all(paths.state()).unwrap();
        std::fs::write(paths.gossip(), b"kept").unwrap();
        let agent = Traces::of_agent(&paths);
        std::fs::create_dir_all(paths.run()).unwrap();
        for made in [paths.identity(), paths.log(), paths.lock()] {
            std::fs::write(made, b"made").unwrap();
        }
        std::fs::write(paths.ledger(), b"").unwrap();
        std::fs::create_dir_all(paths.consul().join("data")).unwrap();
        agent.remove(&paths);
        launch.remove(&paths);
        assert!(!paths.run().exists());
        let left: Vec<_> = std::fs::read_dir(paths.state())
            .unwrap()
            .map(|file| file.unwrap().path())
            .collect();
        assert_eq!(left, [paths.gossip()]);
    }

    #[test]
    fn a_ledger_with_something_to_undo_stays() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path().join("state"), folder.path().join("run"));
        let agent = Traces::of_agent(&paths);
        std::fs::create_dir_all(paths.state()).unwrap();
        std::fs::write(paths.ledger(), b"a change").unwrap();
        agent.remove(&paths);
        assert!(paths.ledger().exists());
    }
}
