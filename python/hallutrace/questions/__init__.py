"""Where questions come from: the small model's own, a file, or a data set on the hub.

A source is a stream. One iteration is one pass over its rows and gives a :class:`Question` or a
:class:`BadRow` for each; only ids and short digests are remembered, never rows. Every row is
either parsed or becomes a bad row that names the problem: none is dropped silently.

Columns are found by name (case, spaces and underscores do not matter), the first of these that
the source has, unless :class:`Columns` maps them or turns them off (`none`):

=========  ========================================================================
question   ``question``, ``query``, ``prompt``, ``question_stem``
id         ``id``, ``question_id``, ``qid``, ``query_id``; a row without one gets ``q`` and 16
           hexadecimal digits that depend on question and context alone
answers    ``right_answer``, ``correct_answer``, ``possible_answers`` and the like;
           ``answers``; ``answer``, unless a column such as ``hallucination`` or ``label`` says
           whether it is right: text, a number, true or false (yes, no), a list of those, also as
           text; TriviaQA's ``{"value", "aliases"}`` or SQuAD's ``{"text"}``; with ``choices`` or
           ``options`` a label or an index of one; may be missing
context    ``context``, ``knowledge``, ``passage``: text, or paragraphs
group      ``group``; the id where there is none
response   ``response``, ``responses``, ``completion``, ``output``, ``generated_answer``:
           text, a list of token ids, or a list of those (:func:`open_responses` alone)
model      ``model``, ``generator``, ``model_name``, and ``temperature``: what made the response;
           one for each of several responses, or one for all
spans      ``spans``, ``hallucination_spans``: a list of ``{"start", "end", "label"}`` (or
           ``label_type``), characters of the response; a list of those for several responses
choices    ``choices``, ``options``: kept, and used to read the answer
incorrect  ``incorrect_answers``, ``wrong_answers``, ``hallucinated_answer`` and the like, and
           the wrong choices of TruthfulQA
=========  ========================================================================

Numbers that are whole are written without a point (1969.0 is 1969), and integers keep all their
digits. Cells of CSV stay as they are written, but for columns in which every number ends in
``.0``, as pandas writes whole numbers beside missing ones.

Modules, from the file to the question:

- ``file_formats`` chooses a reader: ``csv_files``, ``json_files``, ``parquet_files`` or
  ``hub_datasets`` (with ``class_labels``); ``registry`` has readers of your own. A reader yields
  the rows of ``rows``.
- ``schema_detection`` finds in the first rows, with ``columns``, which column holds what.
- ``row_parsing`` makes a question of a row, with ``right_answers``, ``context_paragraphs``,
  ``lists_in_text``, ``cell_values``, and ``response_facts`` for what is known of a response.
- ``sample_rows`` joins rows that are samples of one question; ``source`` puts all of it together.
"""

from hallutrace.questions.registry import register
from hallutrace.questions.rows import (
    BadRow,
    Columns,
    Generator,
    Question,
    Response,
    Span,
    digest_of,
)
from hallutrace.questions.source import QuestionSource, open_questions, open_responses

__all__ = [
    "BadRow",
    "Columns",
    "Generator",
    "Question",
    "QuestionSource",
    "Response",
    "Span",
    "digest_of",
    "open_questions",
    "open_responses",
    "register",
]
