-- What belongs to no schema: a time zone, a plugin, a foreign server. Runs first, events need the zone.
SET sql_mode='', timestamp=1600000000;
INSERT INTO mysql.time_zone (Time_zone_id, Use_leap_seconds) VALUES (7001,'N');
INSERT INTO mysql.time_zone_name (Name, Time_zone_id) VALUES ('Lab/Berlin', 7001);
INSERT INTO mysql.time_zone_transition_type (Time_zone_id, Transition_type_id, `Offset`, Is_DST, Abbreviation) VALUES (7001,0,3600,0,'CET'),(7001,1,7200,1,'CEST');
INSERT INTO mysql.time_zone_transition (Time_zone_id, Transition_time, Transition_type_id) VALUES (7001,-2147483648,0),(7001,1711846800,1),(7001,1729990800,0),(7001,1743296400,1),(7001,1761440400,0);
INSTALL SONAME 'metadata_lock_info';
CREATE SERVER `lab fed` FOREIGN DATA WRAPPER mysql OPTIONS (HOST '127.0.0.1', DATABASE 'none', USER 'fed''user', PASSWORD 'fed\\secret', PORT 1);
CREATE SERVER lab_fed_2 FOREIGN DATA WRAPPER mysql OPTIONS (HOST 'db.example', DATABASE 'remote', USER 'u', PASSWORD '', SOCKET '/nowhere', OWNER 'me');
