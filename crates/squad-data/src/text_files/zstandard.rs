//! The text of compressed files.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// Decoded bytes at which a frame is handed on.
const CHUNK: usize = 1 << 20;

/// The bytes of all Zstandard frames of a file (RFC 8878), one frame after another.
pub(super) struct Frames {
    file: BufReader<File>,
    decoder: FrameDecoder,
    open: bool,
}

impl Frames {
    pub(super) fn new(file: BufReader<File>) -> Self {
        Self { file, decoder: FrameDecoder::new(), open: false }
    }
}

impl Read for Frames {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.open {
                let read = self.decoder.read(buffer)?;
                if read > 0 || buffer.is_empty() {
                    return Ok(read);
                }
                if !self.decoder.is_finished() {
                    let strategy = BlockDecodingStrategy::UptoBytes(CHUNK);
                    self.decoder.decode_blocks(&mut self.file, strategy).map_err(|reason| damaged(&reason))?;
                    continue;
                }
                if let (Some(stored), Some(found)) =
                    (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum())
                    && stored != found
                {
                    return Err(damaged("its checksum does not fit its contents"));
                }
                self.open = false;
            }
            if self.file.fill_buf()?.is_empty() {
                return Ok(0);
            }
            self.decoder.reset(&mut self.file).map_err(|reason| damaged(&reason))?;
            self.open = true;
        }
    }
}

fn damaged(reason: &(impl ToString + ?Sized)) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("damaged Zstandard frame: {}", reason.to_string()))
}
