"""The type checker sees the verbs as they behave."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

REVEALED = {
    "await User.get(1)": "User | None",
    "await User.get(1, 2)": "list[User]",
    "await User.get(1, 2, 3, session=None)": "list[User]",
    'await User.create(email="a", name="b")': "User",
    "await user.save()": "User",
    'await user.update(name="b")': "User | None",
    "await user.remove()": "None",
    "await user.refresh()": "User",
    "user.set_session()": "User",
    "user.served": "bool",
    'User.filter(name="b")': "Query[User]",
    'User.filter_by(name="b").order_by("-id").limit(1).load("keys").for_update()': "Query[User]",
    "await User.filter().first()": "User | None",
    "await User.filter().one()": "User",
    "await User.filter().all()": "list[User]",
    "await User.filter().count()": "int",
    "await User.filter().exists()": "bool",
    "await User.filter().into(Row).first()": "Row | None",
    "await User.filter().order_by('id').limit(1).into(Row).one()": "Row",
    "await User.filter().into(Row).all()": "list[Row]",
    "await BY_NAME.first(name='a')": "Row | None",
    "await BY_NAME.one(name='a')": "Row",
    "await BY_NAME.all(session=None, name='a')": "list[Row]",
    "(await User.filter().one()).keys[0].user.email": "str",
}


def test_mypy_knows_what_every_verb_answers(tmp_path: Path) -> None:
    file = tmp_path / "reveal.py"
    lines = [
        *(
            "import msgspec",
            "from sqlalchemy import bindparam, select",
            "from latchkey import User, prepared",
            "",
        ),
        *("class Row(msgspec.Struct):", "    name: str", ""),
        "BY_NAME = prepared(select(User.name, User.id, User.email).where(User.name == bindparam('name')), into=Row)",
        *("", "async def reveal(user: User) -> None:"),
    ]
    file.write_text("\n".join([*lines, *(f"    reveal_type({one})" for one in REVEALED)]) + "\n")

    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    found = [line.partition('Revealed type is "')[2].rstrip('"') for line in done.stdout.splitlines()]
    short = [
        one.replace("latchkey.models.user.", "")
        .replace("latchkey.models.query.", "")
        .replace("builtins.", "")
        .replace("reveal.", "")
        for one in found
    ]
    assert dict(zip(REVEALED, short, strict=False)) == REVEALED, done.stdout + done.stderr
    assert len(short) == len(REVEALED), done.stdout
