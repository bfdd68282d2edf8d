"""The Jinja2 templates of the page: how they are loaded, and how values are escaped in all HTML of the toolkit.

Every value is escaped when it is written, as ``html.escape`` does it. Two rules keep that so:

- ``safe`` is for text of this package alone: the style sheet, the script and their policy.
- Values are never joined inside a template with ``~`` or ``join``: these escape with MarkupSafe, which writes
  ``&#34;`` and ``&#39;`` where ``html.escape`` writes ``&quot;`` and ``&#x27;``. Write values one after the other.

The templates, ``assets/*.html``, are indented for their readers, and the page has none of that white space. A line
break between two tags (of HTML or of Jinja2) is dropped, and any other becomes one space. ``page.html``, the frame
around the sections, keeps its lines.
"""

from __future__ import annotations

import html
import re
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from ..errors import PackageError
from ..recording import clock
from .text import number, probability, share

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

__all__ = ["as_markup", "read_asset", "render_template", "render_text"]

_FRAME = "page.html"


def render_template(name: str, **values: Any) -> str:
    """Return the text of the template ``assets/<name>`` with ``values`` filled in, escaped.

    Raises:
        PackageError: Jinja2 is not installed.
        jinja2.UndefinedError: the template uses a name that is not in ``values``.
    """
    return _environment().get_template(name).render(**values)


def render_text(template: str, **values: Any) -> Markup:
    """Return the markup of a template given as text, with ``values`` filled in, escaped.

    A value that is markup itself (from this function or ``as_markup``) is not escaped again.

    Raises:
        PackageError: Jinja2 is not installed.
        jinja2.UndefinedError: the template uses a name that is not in ``values``.

    Example:
        render_text("<h1>{{ title }}</h1>", title="a < b")  # <h1>a &lt; b</h1>
    """
    return as_markup(_environment().from_string(template).render(**values))


def as_markup(text: str) -> Markup:
    """Return text as markup, which templates do not escape. Only for text of this package, such as a drawn SVG."""
    from markupsafe import Markup

    return Markup(text)


def read_asset(name: str) -> str:
    """Return the text of the file ``assets/<name>`` with ``\\n`` line ends, however the package was checked out."""
    text = (resources.files(__package__) / "assets" / name).read_text(encoding="utf-8")
    return text.replace("\r\n", "\n")


@cache
def _environment() -> Environment:
    # Imported here: whoever writes no report needs no Jinja2.
    try:
        from jinja2 import Environment, FunctionLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise PackageError(
            "a report needs Jinja2, which is not installed", hint="pip install jinja2"
        ) from error

    def escape(value: Any) -> Any:
        """Escape a value unless it is markup already: the result of a macro, or marked ``safe``."""
        return value if hasattr(value, "__html__") else Markup(html.escape(str(value)))

    # Jinja2 passes each value through ``finalize`` and then through MarkupSafe, which leaves markup as it is.
    made = Environment(
        autoescape=True,
        finalize=escape,
        loader=FunctionLoader(_load),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    made.filters |= {"clock": clock, "number": number, "probability": probability, "share_of": share}
    made.filters |= {"e": escape, "escape": escape}
    return made


def _load(name: str) -> str:
    text = read_asset(name)
    return text if name == _FRAME else _join_lines(text)


def _join_lines(template: str) -> str:
    """Drop line breaks between two tags, and turn any other into a space."""
    between_tags = re.sub(r"(?<=[>}])\s*\n\s*(?=[<{])", "", template.strip())
    return re.sub(r"\s*\n\s*", " ", between_tags)
