//! RAID levels as the engine, the contract and the catalog name them.

use ashlar_engine::raid::Level;
use ashlar_openapi::raid_groups::RaidLevel;

const ALL: [(Level, RaidLevel, i16); 6] = [
    (Level::Raid0, RaidLevel::Raid0, 0),
    (Level::Raid1, RaidLevel::Raid1, 1),
    (Level::Raid3, RaidLevel::Raid3, 3),
    (Level::Raid5, RaidLevel::Raid5, 5),
    (Level::Raid6, RaidLevel::Raid6, 6),
    (Level::Raid10, RaidLevel::Raid10, 10),
];

/// Stripe unit unless one is given: at level 3 so small that all members move together.
pub fn usual_unit(level: Level) -> u64 {
    match level {
        Level::Raid3 => 4 << 10,
        _ => 64 << 10,
    }
}

pub fn of_contract(level: RaidLevel) -> Level {
    let found = ALL.iter().find(|(_, contract, _)| *contract == level);
    found.expect("every level is in the list").0
}

/// As the catalog has it.
pub fn number(level: Level) -> i16 {
    let found = ALL.iter().find(|(engine, ..)| *engine == level);
    found.expect("every level is in the list").2
}

/// Of what the catalog has, which knows no others.
pub fn of_number(number: i16) -> RaidLevel {
    let found = ALL.iter().find(|(.., known)| *known == number);
    found.map_or(RaidLevel::Raid0, |(_, contract, _)| *contract)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_has_a_number_of_its_own_and_is_found_again() {
        for (engine, contract, number_of) in ALL {
            assert_eq!(number(engine), number_of);
            assert_eq!(of_number(number_of), contract);
            assert_eq!(of_contract(contract), engine);
        }
    }
}
