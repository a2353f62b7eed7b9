"""EvalAI's normalizer of short answers (Pythia's and LLaVA's form of VQA's), which both sides of a comparison pass.

Case, commas and question marks, punctuation, number words, articles, contractions. Some rules are odd; figures depend
on them, so they are kept: "3.5" keeps its period, "0.5." loses the last one, and "it's" becomes two words.
"""

import re

_NUMBERS = dict(
    zip(
        "none zero one two three four five six seven eight nine ten".split(),
        "0 0 1 2 3 4 5 6 7 8 9 10".split(),
        strict=True,
    )
)
_ARTICLES = frozenset(("a", "an", "the"))
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_PERIOD = re.compile(r"\.(?!\d)")
# Both originals pass a flag where a count is expected; answers with more periods are unheard of.
_MOST_PERIODS = int(re.UNICODE)
_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""".split()


def _without_one_apostrophe() -> dict[str, str]:
    """Spellings that lack one apostrophe -> contraction."""
    spellings = {"somebody'd": "somebodyd"}  # of VQA's table, which reverses this one
    for word in _CONTRACTIONS:
        for position, letter in enumerate(word):
            if letter == "'":
                spellings[word[:position] + word[position + 1 :]] = word
    return spellings


_SPELLINGS = _without_one_apostrophe()


def normalize(answer: str) -> str:
    """An answer as it is compared."""
    text = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = _without_punctuation(text.replace("\n", " ").replace("\t", " ").strip())
    words = [_NUMBERS.get(word, word) for word in text.split()]
    return " ".join(_SPELLINGS.get(word, word) for word in words if word not in _ARTICLES)


def _without_punctuation(text: str) -> str:
    """Remove marks beside a space, replace others by a space, and remove periods but those before a digit.

    EvalAI's code also asks for a comma between digits here, of which none is left.
    """
    result = text
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if beside_space else " ")
    return _PERIOD.sub("", result, count=_MOST_PERIODS)
