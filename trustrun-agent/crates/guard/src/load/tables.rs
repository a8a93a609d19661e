//! The maps: the policy's tables filled, names bound as the ingress program binds them, what is known of sockets read.

use aya::maps::{Array, HashMap, LpmTrie, MapData, lpm_trie::Key};
use trustrun_common::{
    Address, Binding, BoundName, Classing, DatagramKey, DatagramState, NAME_KEY, NameValue, NetValue, PortKey,
    PortValue, SEARCH_MOST, SearchName, SocketState,
};
use trustrun_policy::Tables;

use super::{Loaded, map_error};
use crate::GuardError;

/// How long a binding is kept after it ended, for connections that were allowed by it.
const KEEP_NS: u64 = 600_000_000_000;

impl Loaded {
    /// Fills the policy's tables, the resolvers and the search list.
    ///
    /// # Errors
    /// If the kernel refuses an element.
    pub fn fill(&mut self, tables: &Tables, resolvers: &[Address], search: &[String]) -> Result<(), GuardError> {
        let mut names: LpmTrie<&mut MapData, [u8; NAME_KEY], NameValue> = self.map_mut("NAMES")?;
        for (key, value) in &tables.names {
            names.insert(&Key::new(key.bits, key.bytes), value, 0).map_err(map_error("NAMES"))?;
        }
        let mut nets: LpmTrie<&mut MapData, Address, NetValue> = self.map_mut("NETS")?;
        for (address, bits, value) in &tables.nets {
            nets.insert(&Key::new(*bits, *address), value, 0).map_err(map_error("NETS"))?;
        }
        let mut nets: LpmTrie<&mut MapData, Address, NetValue> = self.map_mut("LISTEN_NETS")?;
        for (address, bits, value) in &tables.listen {
            nets.insert(&Key::new(*bits, *address), value, 0).map_err(map_error("LISTEN_NETS"))?;
        }
        let mut private: LpmTrie<&mut MapData, Address, u32> = self.map_mut("PRIVATE")?;
        for (address, bits) in &tables.private {
            private.insert(&Key::new(*bits, *address), 1, 0).map_err(map_error("PRIVATE"))?;
        }
        let mut ports: LpmTrie<&mut MapData, PortKey, PortValue> = self.map_mut("PORTS")?;
        for (key, bits, value) in &tables.ports {
            ports.insert(&Key::new(*bits, *key), value, 0).map_err(map_error("PORTS"))?;
        }
        let mut known: HashMap<&mut MapData, Address, u32> = self.map_mut("RESOLVERS")?;
        for (i, address) in (0..).zip(resolvers) {
            known.insert(address, i, 0).map_err(map_error("RESOLVERS"))?;
        }
        let mut domains = Vec::new();
        let mut list: LpmTrie<&mut MapData, [u8; NAME_KEY], u32> = self.map_mut("SEARCH")?;
        for suffix in search.iter().filter(|s| !s.is_empty() && s.len() <= trustrun_common::NAME_MAX) {
            let mut key = [0; NAME_KEY];
            for (k, b) in key.iter_mut().zip(suffix.bytes().rev().chain([b'.'])) {
                *k = b.to_ascii_lowercase();
            }
            let length = suffix.len() as u32;
            list.insert(&Key::new((length + 1) * 8, key), length, 0).map_err(map_error("SEARCH"))?;
            domains.push(SearchName { name: key, length: length + 1 });
        }
        let mut list: Array<&mut MapData, SearchName> = self.map_mut("SEARCH_LIST")?;
        for (i, domain) in (0..SEARCH_MOST).zip(&domains) {
            list.set(i, domain, 0).map_err(map_error("SEARCH_LIST"))?;
        }
        Ok(())
    }

    /// Fills the tables by which processes are classified.
    ///
    /// # Errors
    /// If this kernel's structures are not known, or it refuses an element.
    pub fn classify(&mut self, conditions: &crate::Conditions) -> Result<(), GuardError> {
        let classing = Classing { offsets: crate::btf::file_offsets()?, ..conditions.classing };
        let mut map: Array<&mut MapData, Classing> = self.map_mut("CLASSING")?;
        map.set(0, classing, 0).map_err(map_error("CLASSING"))?;
        self.put("EXES", &conditions.exes)?;
        self.put("FOLDERS", &conditions.folders)?;
        self.put("USERS", &conditions.users)?;
        self.put("ARGUMENT_HASHES", &conditions.arguments)?;
        self.put("CLASS_OF", &conditions.classes)
    }

    fn put<K: aya::Pod, V: aya::Pod>(&mut self, name: &'static str, entries: &[(K, V)]) -> Result<(), GuardError> {
        let mut map: HashMap<&mut MapData, K, V> = self.map_mut(name)?;
        entries.iter().try_for_each(|(key, value)| map.insert(key, value, 0).map_err(map_error(name)))
    }

    /// Whether a thread group is of the session.
    pub fn knows_task(&mut self, tgid: u32) -> bool {
        self.map_mut::<HashMap<&mut MapData, u32, u8>>("TASKS").is_ok_and(|map| map.get(&tgid, 0).is_ok())
    }

    /// TCP sockets that are still known.
    pub fn sockets(&mut self) -> Vec<(u64, SocketState)> {
        let Ok(map) = self.map_mut::<HashMap<&mut MapData, u64, SocketState>>("SOCKETS") else { return Vec::new() };
        map.iter().flatten().collect()
    }

    /// UDP peers that are still known.
    pub fn datagrams(&mut self) -> Vec<(DatagramKey, DatagramState)> {
        let Ok(map) = self.map_mut::<HashMap<&mut MapData, DatagramKey, DatagramState>>("DATAGRAMS") else {
            return Vec::new();
        };
        map.iter().flatten().collect()
    }

    /// Binds an address to a name as the ingress program would: when enforcing (`default` is the policy's then), a name
    /// that the policy does not let be asked binds nothing.
    ///
    /// # Errors
    /// If the table is full.
    pub fn bind(
        &mut self,
        address: Address,
        name: &[u8],
        default: Option<u8>,
        now: u64,
        expires: u64,
    ) -> Result<(), GuardError> {
        let rules = self.rules_of(name)?;
        if default.is_some_and(|d| rules.map_or(d, |r| r.ask) >= trustrun_common::ACTION_BLOCK) {
            return Ok(());
        }
        let private: LpmTrie<&mut MapData, Address, u32> = self.map_mut("PRIVATE")?;
        let private = private.get(&Key::new(128, address), 0).is_ok();
        let set = rules.map_or(0, |r| if private { r.private } else { r.set });
        let skip = rules.map_or(0, |r| r.skip);
        let name = trustrun_common::name_hash(name);
        let mut bindings: HashMap<&mut MapData, Address, Binding> = self.map_mut("BINDINGS")?;
        let mut b = bindings.get(&address, 0).unwrap_or_default();
        let slot = (0..b.sets.len()).find(|&i| b.expires[i] < now || (b.sets[i] == set && b.skips[i] == skip));
        let slot =
            slot.ok_or(GuardError::Map { name: "BINDINGS", reason: "every slot of the address is taken".into() })?;
        b.sets[slot] = set;
        b.skips[slot] = skip;
        b.expires[slot] = b.expires[slot].max(expires);
        bindings.insert(address, b, 0).map_err(map_error("BINDINGS"))?;
        let mut names: HashMap<&mut MapData, BoundName, u64> = self.map_mut("BOUND_NAMES")?;
        names.insert(BoundName { address, name }, expires, 0).map_err(map_error("BOUND_NAMES"))
    }

    /// The policy's rules for a name, from the table that the kernel programs read.
    fn rules_of(&mut self, name: &[u8]) -> Result<Option<NameValue>, GuardError> {
        let mut key = [0; NAME_KEY];
        for (k, b) in key.iter_mut().zip(name.iter().rev()) {
            *k = b.to_ascii_lowercase();
        }
        let bits = (u32::try_from(name.len()).unwrap_or(u32::MAX).min(255) + 1) * 8;
        let names: LpmTrie<&mut MapData, [u8; NAME_KEY], NameValue> = self.map_mut("NAMES")?;
        Ok(names.get(&Key::new(bits, key), 0).ok())
    }

    /// Forgets bindings that ended long ago, so that the tables do not fill in a long session.
    pub fn sweep(&mut self, now: u64) {
        let ended = |e: u64| e.saturating_add(KEEP_NS) < now;
        if let Ok(mut map) = self.map_mut::<HashMap<&mut MapData, Address, Binding>>("BINDINGS") {
            let old: Vec<_> =
                map.iter().flatten().filter(|(_, b)| b.expires.iter().all(|e| ended(*e))).map(|(k, _)| k).collect();
            old.iter().for_each(|k| drop(map.remove(k)));
        }
        if let Ok(mut map) = self.map_mut::<HashMap<&mut MapData, BoundName, u64>>("BOUND_NAMES") {
            let old: Vec<_> = map.iter().flatten().filter(|(_, e)| ended(*e)).map(|(k, _)| k).collect();
            old.iter().for_each(|k| drop(map.remove(k)));
        }
    }
}
