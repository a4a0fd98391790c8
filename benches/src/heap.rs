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
    #[serde(default)]
    eb: u64,
    #[serde(default)]
    ebk: u64,
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
    let profile = Profile::read(file.path())?;
    Ok(Counted {
        blocks: stats.total_blocks,
        bytes: stats.total_bytes,
        places: profile.places(places, |point| (point.tbk, point.tb)),
    })
}

/// What `work` has allocated and still holds when it is done, in all threads. What it holds is in its result, which lives until then.
///
/// # Errors
/// As [`count`].
pub fn held<T>(places: usize, work: impl FnOnce() -> Result<T, Failure>) -> Result<(Counted, T), Failure> {
    let file = tempfile::NamedTempFile::new()?;
    let profiler = dhat::Profiler::builder()
        .file_name(file.path())
        .trim_backtraces(Some(64))
        .build();
    let result = work();
    let stats = dhat::HeapStats::get();
    drop(profiler);
    let result = result?;
    let mut profile = Profile::read(file.path())?;
    profile.pps.retain(|point| point.ebk > 0);
    profile.pps.sort_by_key(|point| std::cmp::Reverse(point.eb));
    let counted = Counted {
        blocks: stats.curr_blocks as u64,
        bytes: stats.curr_bytes as u64,
        places: profile.first(places, |point| (point.ebk, point.eb)),
    };
    Ok((counted, result))
}

impl Profile {
    fn read(file: &std::path::Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(file)?;
        serde_json::from_str(&text).map_err(Failure::of)
    }

    /// Those that allocate most often.
    fn places(mut self, count: usize, figures: impl Fn(&Point) -> (u64, u64)) -> Vec<Place> {
        self.pps.sort_by_key(|point| std::cmp::Reverse(point.tbk));
        self.first(count, figures)
    }

    fn first(&self, count: usize, figures: impl Fn(&Point) -> (u64, u64)) -> Vec<Place> {
        let named = |point: &Point| {
            let (blocks, bytes) = figures(point);
            Place {
                blocks,
                bytes,
                frames: point
                    .fs
                    .iter()
                    .filter_map(|&index| self.ftbl.get(index))
                    .map(|frame| {
                        frame
                            .split_once(": ")
                            .map_or(frame.as_str(), |(_, name)| name)
                            .to_owned()
                    })
                    .take(FRAMES)
                    .collect(),
            }
        };
        self.pps.iter().take(count).map(named).collect()
    }
}

/// Functions shown of each place.
const FRAMES: usize = 14;
