//! The end of a shard: its header, a second look at every byte, and its name.

use std::time::Instant;

use xxhash_rust::xxh3::Xxh3;

use super::{CHUNK, Finished, ShardWriter};
use crate::error::ShardError;
use crate::shard::journal::{self, Opening};
use crate::shard::layout::{self, LENGTH_BYTES, LONGEST_HEADER};
use crate::shard::{files, header};

impl ShardWriter {
    /// Writes the header, syncs, verifies what was written, and publishes the shard.
    ///
    /// The journal stays until [`Self::forget`]: a kill before the commit record goes on from it.
    ///
    /// # Errors
    /// [`ShardError::Exists`] where another process was first; [`ShardError::Io`];
    /// [`ShardError::Damaged`] where the disk gives back other bytes than were written.
    pub fn finish(&mut self) -> Result<Finished, ShardError> {
        // The header of a large shard is the largest thing in memory: once is enough.
        let mut header = layout::encode(&self.traces).into_bytes();
        if header.len() > self.header_space {
            self.move_data(layout::padded_header(header.len()))?;
        }
        self.sync_group()?;
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
        files::publish(&*self.storage, &self.places.partial, &self.places.shard)?;
        self.is_finished = true;
        self.syncing += began.elapsed();
        Ok(finished)
    }

    /// Reads the whole file back, with the strict reader's eyes.
    fn verify(&mut self) -> Result<Finished, ShardError> {
        let path = self.places.partial.display().to_string();
        let damaged = |found: String| ShardError::Damaged { path: path.clone(), found };
        let length = self.file.length().map_err(ShardError::io("read", &self.places.partial))?;
        let mut head = vec![0; LENGTH_BYTES + self.header_space];
        self.file.read_at(&mut head, 0).map_err(ShardError::io("read", &self.places.partial))?;
        let (_, traces) = header::parse(&head, length).map_err(damaged)?;
        if traces != self.traces {
            return Err(damaged("a header that tells of other traces".to_owned()));
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

    /// Gives the header more room: from the last byte to the first, the data moves up.
    fn move_data(&mut self, header_space: usize) -> Result<(), ShardError> {
        if header_space > LONGEST_HEADER {
            return Err(ShardError::Damaged {
                path: self.places.partial.display().to_string(),
                found: format!(
                    "a header of {header_space} bytes (100,000,000 at most: use smaller shards)"
                ),
            });
        }
        // While it moves, the journal would tell of data that is not there.
        let failed = || ShardError::io("write", &self.places.partial);
        let opening = journal::line(&Opening::new("moving", header_space));
        self.journal.set_length(0).and_then(|()| self.journal.sync()).map_err(failed())?;
        self.journal.write_at(&opening, 0).map_err(failed())?;
        self.journal_bytes = opening.len() as u64;
        let (old, new) = (self.data_start(), (LENGTH_BYTES + header_space) as u64);
        let mut buffer = vec![0; CHUNK.min(self.data_bytes)];
        let mut left = self.data_bytes;
        while left > 0 {
            let part = &mut buffer[..left.min(CHUNK)];
            left -= part.len();
            self.file
                .read_at(part, old + left as u64)
                .and_then(|()| self.file.write_at(part, new + left as u64))
                .map_err(failed())?;
        }
        self.header_space = header_space;
        Ok(())
    }
}
