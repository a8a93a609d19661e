//! A test of the object: no program and what it calls take more stack than the oldest verifier gives.
//!
//! The kernel gives 512 octets to a chain of calls. Verifiers before 6.8 round each function's share up to 32, newer ones where
//! programs are compiled to 16, so that an object may load here and not there. What a function takes is read from its
//! instructions as the verifier does: the lowest address below the frame pointer (r10) that it uses.

use std::collections::{BTreeMap, BTreeSet};

use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SymbolKind};

use super::programs::OBJECT;

/// MAX_BPF_STACK, include/linux/filter.h
const MOST: u64 = 512;
/// What each function's share is rounded up to, kernel/bpf/verifier.c `check_max_stack_depth` before 6.8.
const ROUNDED: u64 = 32;
/// r10
const FRAME: u8 = 10;

#[derive(Debug, Default)]
struct Function {
    stack: u64,
    calls: BTreeSet<String>,
}

/// One instruction of eight octets: opcode, registers, offset, number.
fn fields(instruction: &[u8]) -> (u8, u8, u8, i64, i64) {
    let offset = i16::from_le_bytes([instruction[2], instruction[3]]);
    let number = i32::from_le_bytes([instruction[4], instruction[5], instruction[6], instruction[7]]);
    (instruction[0], instruction[1] & 15, instruction[1] >> 4, offset.into(), number.into())
}

fn functions() -> BTreeMap<String, Function> {
    let file = object::File::parse(OBJECT).unwrap();
    let all: Vec<_> = file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0).collect();
    let named = |section, at| {
        let found = all.iter().find(|s| s.section_index() == Some(section) && s.address() == at);
        found.map(|s| s.name().unwrap().to_owned())
    };
    let mut functions = BTreeMap::new();
    for symbol in &all {
        let section = file.section_by_index(symbol.section_index().unwrap()).unwrap();
        let (start, size) = (symbol.address() as usize, symbol.size() as usize);
        let code = &section.data().unwrap()[start..start + size];
        let mut function = Function::default();
        let mut copied = None;
        for instruction in code.chunks_exact(8) {
            let (opcode, to, from, offset, number) = fields(instruction);
            // Stores are the classes ST and STX, loads LDX.
            let at = match opcode & 7 {
                2 | 3 if to == FRAME => offset,
                1 if from == FRAME => offset,
                // An address on the stack: a copy of r10 and something added to it.
                _ if opcode == 0x07 && copied == Some(to) => number,
                _ => 0,
            };
            function.stack = function.stack.max(u64::try_from(-at).unwrap_or(0));
            copied = (opcode == 0xbf && from == FRAME).then_some(to);
        }
        for (at, relocation) in section.relocations() {
            let inside = (start..start + size).contains(&(at as usize));
            let (RelocationTarget::Symbol(target), true) = (relocation.target(), inside) else { continue };
            let (opcode, _, kind, _, number) = fields(&code[at as usize - start..]);
            // BPF_CALL of a function of our own
            if opcode != 0x85 || kind != 1 {
                continue;
            }
            let target = file.symbol_by_index(target).unwrap();
            let called = match target.kind() {
                SymbolKind::Section => named(target.section_index().unwrap(), ((number + 1) * 8).cast_unsigned()),
                _ => Some(target.name().unwrap().to_owned()),
            };
            function.calls.extend(called);
        }
        functions.insert(symbol.name().unwrap().to_owned(), function);
    }
    functions
}

/// What a function and the deepest chain of calls below it take.
fn deepest(functions: &BTreeMap<String, Function>, name: &str) -> u64 {
    let Some(function) = functions.get(name) else { return 0 };
    let below = function.calls.iter().map(|called| deepest(functions, called)).max().unwrap_or(0);
    function.stack.max(1).next_multiple_of(ROUNDED) + below
}

#[test]
fn no_program_takes_more_stack_than_an_old_verifier_gives() {
    let functions = functions();
    // The reading itself: these are known to take some, and to call.
    assert!(functions["connect4"].stack > 64 && functions["connect4"].calls.contains("decide_destination"));
    let depths: Vec<(&str, u64)> = functions.keys().map(|name| (name.as_str(), deepest(&functions, name))).collect();
    let over: Vec<_> = depths.iter().filter(|(_, depth)| *depth > MOST).collect();
    assert!(over.is_empty(), "more than {MOST} octets of stack: {over:?}");
}
