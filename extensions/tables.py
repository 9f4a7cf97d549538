"""A table as Material draws its own: it scrolls in itself on a small screen, also by keyboard."""


def table(
    label: str, name: str, heads: list[str], rows: list[list[str]], classes: list[str] | None = None
) -> str:
    """HTML of a table.

    Args:
        label: what the table is, for screen readers.
        name: a class for its style.
        heads: the column heads, as text.
        rows: the cells, as HTML.
        classes: the class of each row, if they have any.
    """
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    starts = [f'<tr class="{kind}">' for kind in classes] if classes else ["<tr>"] * len(rows)
    body = "".join(
        start + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>"
        for start, row in zip(starts, rows, strict=True)
    )
    return (
        f'<div class="md-typeset__scrollwrap {name}" tabindex="0" role="region" aria-label="{label}">'
        f'<div class="md-typeset__table"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></div>"
    )
