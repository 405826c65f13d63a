//! How many connections each client has: one that opens them without end must not leave the others none.
//!
//! Invariant: a client without connections takes no memory.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::network::network_of;

/// Connections of one address, or of one IPv6 network.
const MOST_OF_PEER: usize = 256;

/// Connections by where they come from.
#[derive(Debug, Clone, Default)]
pub struct Peers(Arc<Mutex<BTreeMap<IpAddr, usize>>>);

/// One connection; it is counted until this goes away.
#[derive(Debug)]
pub struct Counted {
    peers: Peers,
    /// `None` where it is not counted.
    network: Option<IpAddr>,
}

impl Peers {
    /// `None` where there are too many from there already. This machine's own are not counted: a proxy in front of the
    /// appliance speaks for many.
    pub fn admit(&self, address: IpAddr) -> Option<Counted> {
        let network = network_of(address);
        let counted = |network| Counted {
            peers: self.clone(),
            network,
        };
        if network.is_loopback() || address.is_loopback() {
            return Some(counted(None));
        }
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = peers.entry(network).or_default();
        if *connections >= MOST_OF_PEER {
            return None;
        }
        *connections += 1;
        Some(counted(Some(network)))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Some(network) = self.network else { return };
        let mut peers = self.peers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connections) = peers.get_mut(&network) {
            *connections -= 1;
            if *connections == 0 {
                peers.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_cannot_have_all_connections_and_gets_its_own_back() {
        let peers = Peers::default();
        let [greedy, same_network, other] =
            ["2001:db8::1", "2001:db8::2", "192.0.2.1"].map(|text| text.parse().unwrap());
        let mut held: Vec<_> = (0..MOST_OF_PEER).map(|_| peers.admit(greedy).unwrap()).collect();
        assert!(peers.admit(greedy).is_none());
        assert!(peers.admit(same_network).is_none());
        assert!(peers.admit(other).is_some());
        held.pop();
        held.push(peers.admit(same_network).unwrap());
        held.clear();
        assert!(peers.0.lock().unwrap().is_empty());
    }

    #[test]
    fn clients_of_this_machine_are_not_counted() {
        let peers = Peers::default();
        for local in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            let local = local.parse().unwrap();
            let held: Vec<_> = (0..=MOST_OF_PEER).map(|_| peers.admit(local)).collect();
            assert!(held.iter().all(Option::is_some));
        }
    }
}
