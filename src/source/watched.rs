//! Images that are put into a folder, by inotify.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::{Content, Picture, Source, SourceFailure, Wait};
use crate::files::read_up_to;
use crate::limits::{IMAGE_BYTES_MAX, WATCHED_FILES_MAX};
use crate::listing::is_image_name;

/// A watched folder. Only files that were closed after writing, or moved in, are read: they are whole.
pub(crate) struct Watched {
    folder: PathBuf,
    inotify: Inotify,
    ready: VecDeque<PathBuf>,
}

impl Watched {
    pub(crate) fn open(folder: &Path) -> Result<Self, SourceFailure> {
        let failed =
            |problem: Errno| SourceFailure::Failed(format!("cannot watch {}: {}", folder.display(), problem.desc()));
        // Not blocking, because `poll` may wake without an event; closed on exec, so that no command inherits it.
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).map_err(failed)?;
        let events = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        inotify.add_watch(folder, events).map_err(failed)?;
        Ok(Self { folder: folder.into(), inotify, ready: VecDeque::new() })
    }

    /// Queues the files that the kernel has reported.
    fn collect(&mut self) -> Result<(), SourceFailure> {
        let events = match self.inotify.read_events() {
            Ok(events) => events,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
            Err(problem) => return Err(SourceFailure::Failed(format!("cannot read what changed: {}", problem.desc()))),
        };
        // A watch follows the folder, not its name: after a rename it would see files come into a folder that is not
        // meant any more.
        let gone = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_IGNORED;
        for event in events {
            if event.mask.intersects(gone) {
                return Err(SourceFailure::Ended("the folder is gone".into()));
            }
            // Listing the folder would not help: which of its files are new is what was lost.
            if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                log::warn!(
                    "files came into {} faster than they could be noted; some are missed",
                    self.folder.display()
                );
            }
            // Events about the folder itself have no name.
            let Some(name) = event.name else { continue };
            let path = self.folder.join(name);
            if is_image_name(&path) {
                self.ready.push_back(path);
            }
        }
        Ok(())
    }
}

impl Source for Watched {
    fn next(&mut self, wait: &Wait) -> Result<Picture, SourceFailure> {
        loop {
            // Also while files wait: the kernel notes 16,384 events and forgets the rest.
            if self.ready.len() < WATCHED_FILES_MAX {
                self.collect()?;
            }
            while let Some(path) = self.ready.pop_front() {
                match read_up_to(&path, IMAGE_BYTES_MAX) {
                    // One byte more than the limit is read at most, by which the decoder knows to refuse the file.
                    Ok(bytes) => {
                        let name = Some(path.to_string_lossy().into_owned());
                        return Ok(Picture { name, content: Content::File(bytes) });
                    }
                    // It may be gone again, or a folder of that name; the next one is as good.
                    Err(error) => log::warn!("cannot read {}: {error}", path.display()),
                }
            }
            wait.readable(&self.inotify)?;
        }
    }

    fn waiting(&self) -> usize {
        self.ready.len()
    }
}
