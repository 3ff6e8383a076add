"""A MariaDB for faults: another one can replicate it, and take its place."""

from tests.mariadb import PrivateMariaDB


class ReplicatingMariaDB(PrivateMariaDB):
    """A server with a binary log."""

    def __init__(self, server_id: int, database: str = "faults") -> None:
        super().__init__(database)
        self.server_id = server_id

    def _serving(self) -> list[str]:
        return [
            *(one for one in super()._serving() if one != "--skip-log-bin"),
            "--log-bin",
            f"--server-id={self.server_id}",
        ]

    def follow(self, primary: PrivateMariaDB) -> None:
        """Replicate another server, from its first statement."""
        primary.execute(
            "CREATE OR REPLACE USER 'replica'@'127.0.0.1'; GRANT REPLICATION SLAVE ON *.* TO 'replica'@'127.0.0.1'"
        )
        self.execute(
            f"DROP DATABASE {self.database}; DROP USER 'app'@'127.0.0.1'; RESET MASTER;"
            f"CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {primary.port}, MASTER_USER = 'replica',"
            "MASTER_USE_GTID = slave_pos; START SLAVE"
        )
        self.catch_up(primary)

    def take_over(self, primary: PrivateMariaDB) -> None:
        """Apply what the former primary committed, and take writes."""
        self.catch_up(primary)
        self.execute("STOP SLAVE; RESET SLAVE ALL")

    def catch_up(self, primary: PrivateMariaDB) -> None:
        position = primary.execute("SELECT @@GLOBAL.gtid_binlog_pos").strip()
        waited = self.execute(f"SELECT MASTER_GTID_WAIT('{position}', 30)").strip()
        assert waited == "0", f"the replica does not follow: {self.execute('SHOW SLAVE STATUS')}"
