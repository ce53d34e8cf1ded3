//! The memory that hostile bytes may cost (T57): a decoder never reserves much more than the size of its input. One
//! test per process would do; a counting allocator needs `unsafe`, so it has a file of its own.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use nfreezer::crypto::keys::ChunkId;
use nfreezer::format::list::List;
use nfreezer::format::page::Page;
use nfreezer::format::reference::{PackRef, Ref};
use nfreezer::format::{limits, node, pack, record, stored};
use nfreezer::name::ObjectId;

thread_local! {
    static NOW: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; the counters are plain cells of the calling thread.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        add(-(layout.size() as isize));
        unsafe { System.dealloc(at, layout) }
    }
}

fn add(bytes: isize) {
    let _ = NOW.try_with(|now| {
        now.set(now.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now.get())));
    });
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Returns the most bytes that were reserved at once during `work`.
fn peak<T>(work: impl FnOnce() -> T) -> usize {
    let before = NOW.get();
    PEAK.set(before);
    drop(work());
    (PEAK.get() - before) as usize
}

const OWN: PackRef = PackRef { id: ObjectId([0xcc; 32]), len: 65536 };
/// Allowance in bytes: serde reserves at most 1 MiB for a sequence whose claimed length it has not seen; three of them
/// can be nested.
const FIXED: usize = 4 << 20;

fn varint(mut n: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while n > 127 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out
}

#[test]
fn t57_decoding_reserves_in_proportion_to_its_input() {
    for len in [10_usize, 10_000, limits::PAGE, 1 << 20] {
        for byte in [0, 1, 2, 0x7f] {
            for prefix in [vec![], vec![0], vec![0, 0], vec![0, 0, 0], vec![7, 0, 0]] {
                let bytes = [prefix, varint(u64::from(u32::MAX)), vec![byte; len]].concat();
                let exact = [vec![0, 0, 0], varint(len as u64 / 10), vec![byte; len]].concat();
                for bytes in [bytes, exact] {
                    let framed = [vec![0; 4], bytes.clone()].concat();
                    let costs = [
                        ("page", peak(|| Page::decode(&bytes, &OWN))),
                        ("list", peak(|| List::decode(&bytes, &OWN))),
                        ("attributes", peak(|| node::decode_xattrs(&bytes))),
                        ("record", peak(|| record::decode(7, &framed))),
                        ("table", peak(|| pack::decode_table(ObjectId([1; 32]), 1 << 24, &bytes))),
                    ];
                    for (what, cost) in costs {
                        assert!(cost <= FIXED + 48 * bytes.len(), "{what}: {cost} bytes for {}", bytes.len());
                    }
                }
            }
        }
    }
}

/// The densest encoding with the largest decoded value: a page of nothing but the smallest nodes.
#[test]
fn t57_the_largest_page_of_the_smallest_nodes_costs_little() {
    let owner = [0, 0, 0, 0, 0, 0];
    let mut bytes = [vec![0, 1], owner.to_vec(), vec![0], varint(20_000)].concat();
    for i in 0..20_000_u32 {
        bytes.extend([2, (i >> 8) as u8 | 0x80, i as u8 | 1, 0, 0, 0, 0, 0, 0, 6]);
    }
    assert!(bytes.len() < limits::PAGE);
    assert!(peak(|| Page::decode(&bytes, &OWN)) < 32 << 20);
}

#[test]
fn t63_a_zstd_bomb_reserves_no_more_than_a_part() {
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
    let claims = [&[0x28, 0xb5, 0x2f, 0xfd, 0xe0][..], &[0, 0, 0, 0, 0, 1, 0, 0], &[0x03, 0, 0]].concat();
    for stored in [bomb, claims] {
        for len in [stored.len() as u32 + 1, 4 << 20] {
            let pack = PackRef { id: ObjectId([1; 32]), len: 1 << 24 };
            let r = Ref { id: ChunkId([1; 16]), pack, offset: 0, stored: stored.len() as u32, len };
            let cost = peak(|| assert!(stored::unpack(&r, stored.clone()).is_err()));
            assert!(cost < 8 << 20, "{cost} bytes");
        }
    }
}
