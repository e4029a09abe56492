//! The end of a shard: its header, a second look at every byte, and its name.

use std::time::Instant;

use super::{ALIGNMENT, ShardWriter, State};
use crate::error::ShardError;
use crate::shard::commit::{Commit, Outcome};
use crate::shard::damage::Damage;
use crate::shard::files;
use crate::shard::header_layout::{self, LENGTH_BYTES, LONGEST_HEADER};
use crate::shard::published::{Finished, read_back};

impl ShardWriter {
    /// Writes the header, syncs, verifies what was written, and publishes the shard.
    ///
    /// The journal stays until [`Self::forget`].
    ///
    /// # Errors
    /// [`ShardError::Indices`] or [`ShardError::LongHeader`], and another outcome may be given;
    /// [`ShardError::Exists`] where another process was first; [`ShardError::Superseded`] where one goes on
    /// with the shard; [`ShardError::Io`]; [`ShardError::Damaged`] where the disk gives back other bytes
    /// than were written. The writer is spent after each of these four; [`ShardError::Spent`].
    pub fn finish(&mut self, outcome: Outcome) -> Result<Finished, ShardError> {
        self.check_open()?;
        let (indices, traces) = (outcome.indices.len(), self.traces.len());
        if indices != traces {
            return Err(ShardError::Indices { indices, traces });
        }
        let commit = Commit { description: self.description.clone(), outcome };
        // The header of a large shard is the largest thing in memory: once is enough.
        let header = header_layout::encode(&commit, &self.traces).into_bytes();
        if header.len() > LONGEST_HEADER - ALIGNMENT {
            return Err(ShardError::LongHeader { bytes: header.len() });
        }
        let finished = self.or_spent(|writer| writer.publish(header, &commit))?;
        self.state = State::Finished;
        Ok(finished)
    }

    fn publish(&mut self, mut header: Vec<u8>, commit: &Commit) -> Result<Finished, ShardError> {
        self.sync_group()?;
        if header.len() > self.header_space {
            self.move_data(header_layout::padded_header(header.len()))?;
        }
        header.resize(self.header_space, b' ');
        let began = Instant::now();
        // Its length last: a file without one was never finished.
        self.file
            .write_at(&header, LENGTH_BYTES as u64)
            .and_then(|()| self.file.write_at(&(self.header_space as u64).to_le_bytes(), 0))
            .and_then(|()| self.file.sync())
            .map_err(ShardError::io("write", &self.paths.partial))?;
        drop(header);
        self.syncing += began.elapsed();
        let (partial, shard) = (&self.paths.partial, &self.paths.shard);
        let (read, finished) = read_back(&mut *self.file, partial)?;
        if read.traces != self.traces || read.commit != *commit {
            return Err(ShardError::damaged(partial, Damage::OtherHeader));
        }
        let began = Instant::now();
        files::publish_open(&*self.storage, &mut *self.file, partial, shard)?;
        self.syncing += began.elapsed();
        Ok(finished)
    }

    /// Gives the header more room: the data goes on in another file, and the journal as well.
    ///
    /// A kill between the names of the two begins the shard anew: what the one tells of is not where it
    /// says.
    fn move_data(&mut self, header_space: usize) -> Result<(), ShardError> {
        let mut lines = vec![0; usize::try_from(self.journal_bytes).unwrap_or(0)];
        let journal = &self.paths.journal;
        self.journal.read_at(&mut lines, 0).map_err(ShardError::io("read", journal))?;
        self.move_to(header_space, &lines)
    }
}
