-- The gaming site's tables. Load it once: mariadb < schema.sql
-- utf8mb4_bin: operation ids and mottos are equal only if their bytes are.
CREATE DATABASE site CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
USE site;

-- One row for each player. The table itself forbids that a player gives away more coins than they have.
CREATE TABLE players (
    player  SMALLINT UNSIGNED NOT NULL PRIMARY KEY,
    motto   VARCHAR(200) NOT NULL DEFAULT '',
    version INT UNSIGNED NOT NULL DEFAULT 0,
    score   BIGINT UNSIGNED NOT NULL DEFAULT 0,
    coins   INT NOT NULL DEFAULT 1000,
    CONSTRAINT enough_coins CHECK (coins >= 0)
) ENGINE = InnoDB;

-- Each entry raised its player's score. There is no foreign key: its check would lock the player's row shared
-- before the score's UPDATE locks it exclusively, and two scores of one player would deadlock.
CREATE TABLE ledger (
    entry  BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    op     VARCHAR(64) NOT NULL,
    player SMALLINT UNSIGNED NOT NULL,
    points SMALLINT UNSIGNED NOT NULL,
    UNIQUE KEY op (op),
    KEY player (player)
) ENGINE = InnoDB;

-- The transfers made, so that a repeated one is recognised.
CREATE TABLE transfers (
    entry BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    op    VARCHAR(64) NOT NULL,
    payer SMALLINT UNSIGNED NOT NULL,
    payee SMALLINT UNSIGNED NOT NULL,
    coins SMALLINT UNSIGNED NOT NULL,
    UNIQUE KEY op (op)
) ENGINE = InnoDB;

INSERT INTO players (player) SELECT seq FROM seq_1_to_200;
