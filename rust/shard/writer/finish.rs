//! The end of a shard: its header, a second look at every byte, and its name.

use std::time::Instant;

use xxhash_rust::xxh3::Xxh3;

use super::{CHUNK, Finished, ShardWriter, State};
use crate::error::ShardError;
use crate::shard::damage::Damage;
use crate::shard::files;
use crate::shard::header;
use crate::shard::layout::{self, LENGTH_BYTES, LONGEST_HEADER};

impl ShardWriter {
    /// Writes the header, syncs, verifies what was written, and publishes the shard.
    ///
    /// The journal stays until [`Self::forget`]: a kill before the commit record goes on from it.
    ///
    /// # Errors
    /// [`ShardError::Exists`] where another process was first; [`ShardError::Superseded`] where one goes on
    /// with the shard; [`ShardError::Io`]; [`ShardError::Damaged`] where the disk gives back other bytes
    /// than were written. The writer is spent after each of them; [`ShardError::Spent`].
    pub fn finish(&mut self) -> Result<Finished, ShardError> {
        if self.state != State::Taken {
            self.check_open()?;
        }
        let is_taken = self.state == State::Taken;
        let finished =
            self.or_spent(
                |writer| {
                    if is_taken { writer.finish_taken() } else { writer.finish_new() }
                },
            )?;
        self.state = State::Finished;
        Ok(finished)
    }

    fn finish_new(&mut self) -> Result<Finished, ShardError> {
        self.sync_group()?;
        // The header of a large shard is the largest thing in memory: once is enough.
        let mut header = layout::encode(&self.traces).into_bytes();
        if header.len() > self.header_space {
            self.move_data(layout::padded_header(header.len()))?;
        }
        header.resize(self.header_space, b' ');
        let began = Instant::now();
        // Its length last: a file without one was never finished.
        self.file
            .write_at(&header, LENGTH_BYTES as u64)
            .and_then(|()| self.file.write_at(&(self.header_space as u64).to_le_bytes(), 0))
            .and_then(|()| self.file.sync())
            .map_err(ShardError::io("write", &self.places.partial))?;
        drop(header);
        self.syncing += began.elapsed();
        let finished = self.verify()?;
        let began = Instant::now();
        let (partial, shard) = (&self.places.partial, &self.places.shard);
        files::publish_open(&*self.storage, &mut *self.file, partial, shard)?;
        self.syncing += began.elapsed();
        Ok(finished)
    }

    /// The end of a shard that has its name already; what lies where it was written is not needed.
    fn finish_taken(&mut self) -> Result<Finished, ShardError> {
        let (partial, shard) = (&self.places.partial, &self.places.shard);
        self.file.sync().map_err(ShardError::io("sync", shard))?;
        if self.storage.exists(partial) {
            files::remove(&*self.storage, partial)?;
        }
        files::sync_folders(&*self.storage, [shard, partial])?;
        self.verify()
    }

    /// Reads the whole file back, with the strict reader's eyes.
    fn verify(&mut self) -> Result<Finished, ShardError> {
        let path = self.places.partial.display().to_string();
        let damaged = |found: Damage| ShardError::Damaged { path: path.clone(), found };
        let length = self.file.length().map_err(ShardError::io("read", &self.places.partial))?;
        let mut head = vec![0; LENGTH_BYTES + self.header_space];
        self.file.read_at(&mut head, 0).map_err(ShardError::io("read", &self.places.partial))?;
        let (_, traces) = header::parse(&head, length).map_err(damaged)?;
        if traces != self.traces {
            return Err(damaged(Damage::OtherTraces));
        }
        self.check_data()?;
        let mut hash = Xxh3::new();
        let mut buffer = vec![0; usize::try_from(length).map_or(CHUNK, |length| length.min(CHUNK))];
        let mut at = 0;
        while at < length {
            let part = &mut buffer[..usize::try_from(length - at).map_or(CHUNK, |n| n.min(CHUNK))];
            self.file.read_at(part, at).map_err(ShardError::io("read", &self.places.partial))?;
            hash.update(part);
            at += part.len() as u64;
        }
        Ok(Finished { bytes: length, checksum: hash.digest() })
    }

    /// Gives the header more room: the data goes on in another file, and the journal as well.
    ///
    /// A kill between the names of the two begins the shard anew: what the one tells of is not where it
    /// says.
    fn move_data(&mut self, header_space: usize) -> Result<(), ShardError> {
        if header_space > LONGEST_HEADER {
            return Err(ShardError::Damaged {
                path: self.places.partial.display().to_string(),
                found: Damage::LongHeader { length: header_space },
            });
        }
        let mut lines = vec![0; usize::try_from(self.journal_bytes).unwrap_or(0)];
        let journal = &self.places.journal;
        self.journal.read_at(&mut lines, 0).map_err(ShardError::io("read", journal))?;
        self.move_to(header_space, &lines)
    }
}
