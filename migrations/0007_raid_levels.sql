-- Every level that a RAID group can have.
alter table raid_groups drop constraint raid_groups_level_check;
alter table raid_groups add constraint raid_groups_level_check check (level in (0, 1, 3, 5, 6, 10));
