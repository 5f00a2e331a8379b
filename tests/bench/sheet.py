"""A table, once as data: printed for people and written as Markdown from the same rows."""

from __future__ import annotations

from dataclasses import dataclass

from rich.table import Table


@dataclass(frozen=True)
class Sheet:
    """A title, the column heads (the first is text, the others numbers) and the rows."""

    title: str
    heads: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def table(self) -> Table:
        """For a terminal."""
        table = Table(title=self.title, title_justify="left", box=None)
        for index, head in enumerate(self.heads):
            table.add_column(head, justify="right" if index else "left")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """As a Markdown table under its title."""
        rule = "|".join(["---"] + ["---:"] * (len(self.heads) - 1))
        lines = [" | ".join(self.heads), rule, *(" | ".join(row) for row in self.rows)]
        return f"### {self.title}\n\n" + "\n".join(f"| {line} |" for line in lines) + "\n"
