"""closing.py: the table is in order and every entry fits a close frame."""

from bridge import closing


def test_table() -> None:
    codes = [entry.code for entry in closing.TABLE]
    assert codes == sorted(set(codes))
    assert all(0 < len(entry.reason.encode()) <= 123 for entry in closing.TABLE)
    named = {value for value in vars(closing).values() if isinstance(value, closing.Closing)}
    assert named == set(closing.TABLE)


def test_clients_come_back_only_where_it_helps() -> None:
    assert {entry.code for entry in closing.TABLE if entry.reconnect} == {1001, 1006, 1011, 1012, 1013}
