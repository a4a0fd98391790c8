//! Counting allocations with the allocator of `dhat`, and where they were made.

use serde::Deserialize;

use crate::load::Failure;

/// What was allocated meanwhile.
#[derive(Debug, Default)]
pub struct Counted {
    /// Allocations, and reallocations, which may move.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Where most of them were made, if that was asked for.
    pub places: Vec<Place>,
}

/// A place in the program that allocates.
#[derive(Debug)]
pub struct Place {
    /// Allocations.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The functions that were running, innermost first.
    pub frames: Vec<String>,
}

/// What `dhat` writes, as far as it is of use here.
#[derive(Deserialize)]
struct Profile {
    pps: Vec<Point>,
    ftbl: Vec<String>,
}

#[derive(Deserialize)]
struct Point {
    tb: u64,
    tbk: u64,
    fs: Vec<usize>,
}

/// Counts the allocations of all threads while `work` runs. The program's allocator must be [`dhat::Alloc`].
///
/// # Errors
/// When `work` fails, or the profile cannot be read.
pub fn count(places: Option<usize>, work: impl FnOnce() -> Result<(), Failure>) -> Result<Counted, Failure> {
    let Some(places) = places else {
        let profiler = dhat::Profiler::builder().testing().build();
        let result = work();
        let stats = dhat::HeapStats::get();
        drop(profiler);
        return result.map(|()| Counted {
            blocks: stats.total_blocks,
            bytes: stats.total_bytes,
            places: Vec::new(),
        });
    };
    let file = tempfile::NamedTempFile::new()?;
    let profiler = dhat::Profiler::builder()
        .file_name(file.path())
        .trim_backtraces(Some(64))
        .build();
    let result = work();
    let stats = dhat::HeapStats::get();
    drop(profiler);
    result?;
    let text = std::fs::read_to_string(file.path())?;
    let mut profile: Profile = serde_json::from_str(&text).map_err(Failure::of)?;
    profile.pps.sort_by_key(|point| std::cmp::Reverse(point.tbk));
    let places = profile.pps.iter().take(places).map(|point| Place {
        blocks: point.tbk,
        bytes: point.tb,
        frames: point
            .fs
            .iter()
            .filter_map(|&index| profile.ftbl.get(index))
            .map(|frame| {
                frame
                    .split_once(": ")
                    .map_or(frame.as_str(), |(_, name)| name)
                    .to_owned()
            })
            .take(FRAMES)
            .collect(),
    });
    Ok(Counted {
        blocks: stats.total_blocks,
        bytes: stats.total_bytes,
        places: places.collect(),
    })
}

/// Functions shown of each place.
const FRAMES: usize = 14;
