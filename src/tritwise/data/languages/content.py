"""Content rules for extensions that several languages share.

`RULES` gives for each the usual language and a function from the head of a file to its language. None means another
language than those of the table (Objective-C, Coq, Puppet, Qt's translations): such a file is not read.
"""

import re
from collections.abc import Callable

Choice = Callable[[bytes], str | None]


def _pattern(*alternatives: str) -> re.Pattern[bytes]:
    """One pattern of several. `\\h` is a blank within a line: `^\\s*` would read blank lines time and again."""
    alternatives = tuple(a.replace(r"\h", r"[ \t\r]") for a in alternatives)
    groups = (f"(?i:{a[4:]})" if a.startswith("(?i)") else f"(?:{a})" for a in alternatives)
    return re.compile("|".join(groups).encode(), re.MULTILINE)


def _first(*rules: tuple[re.Pattern[bytes], str | None], otherwise: str | None) -> Choice:
    """The language of the first pattern that is found. Heads are of any text: no pattern may need quadratic time."""
    def choose(head: bytes) -> str | None:
        return next((language for pattern, language in rules if pattern.search(head)), otherwise)

    return choose


_OBJECTIVE_C = _pattern(r"^\h*@(?:interface|implementation|protocol|property|end|class|synthesize|import)\b",
                        r"^\h*#\h*import\h+[<\"]")
_C_PLUS_PLUS = _pattern(r"^\h*template\h*<", r"^\h*(?:inline\h+)?namespace(?:\h+[\w:]+)?\h*(?:\{|$)",
                        r"^\h*using\h+(?:namespace\h+)?\w+::", r"^\h*using\h+namespace\h+\w+\h*;",
                        r"^\h*(?:public|private|protected)\h*(?:slots\h*)?:\h*$",
                        r"^\h*(?:enum\h+)?class\h+(?:\w+\h+)?\w+\h*(?:final\h*)?(?:$|[{;:])", r"\bstd::\w",
                        r"^\h*(?:explicit|constexpr|virtual)\h+\w", r"\boperator\h*(?:==|\(\)|\[\]|<<|=)\h*\(",
                        r"^\h*extern\h+\"C\+\+\"", r"\b(?:static|dynamic|reinterpret|const)_cast\h*<",
                        r"\bnoexcept\b", r"\w\h*=\h*(?:delete|default)\h*;")
_C_PLUS_PLUS_HEADER = _pattern(r"^\h*#\h*include\h*<(?:algorithm|array|atomic|bitset|cassert|cmath|cstd\w+|cstring|"
                               r"deque|exception|functional|iostream|iterator|list|map|memory|mutex|new|optional|queue|set|"
                               r"sstream|stack|stdexcept|streambuf|string|string_view|thread|tuple|type_traits|"
                               r"unordered_map|unordered_set|utility|variant|vector)>")
_MATHEMATICA = _pattern(r"\(\*[^*\n]{0,200}\*\)", r"^\h*\(\*", r"^\h*(?:BeginPackage|Begin|Needs|Notebook)\[",
                        r"\b\w+\[\w*_")
_MATLAB = _pattern(r"^\h*%", r"^\h*(?:function|classdef|endfunction)\b", r"^\h*end\h*;?\h*$", r"\.\.\.\h*$")
_NOT_MATLAB = _pattern(r"^\w*\h*;", r"^\h+(?:set|write|new|do|quit)\h+\w+(?:[=,]|$)", r"^\h*:- module\b",
                       r"^: \w", r"^\h*;", r"^\w+\h*:\h*module\h*\{", r"^\h*implement \w+;")
_PERL = _pattern(r"^\h*use\h+(?:strict|warnings|vars|lib|utf8|constant|overload|base|parent|v?5\b)",
                 r"^\h*use\h+[A-Z]\w*", r"\bmy\h*[$@%(]", r"^\h*sub\h+\w+",
                 r"^\h*package\h+[A-Za-z_]\w*(?:::\w+)*\h*[;{]", r"^\h*our\h*[$@%(]", r"[$@]_\b",
                 r"=~\h*[ms/]", r"^\h*require\h+[\"'\w]")
_RAKU = _pattern(r"^\h*use\h+v6\b")
_RAKU_CLASS = _pattern(r"^\h*(?:my\h+)?(?:unit\h+)?(?:class|role|grammar|module)\h+[A-Z]\w*.*[{;]\h*$")
_PROLOG = _pattern(r"^\h*:-\h*\w", r"^[a-z]\w*(?:\([^#\n]*\))?\h*:-", r"^[a-z]\w*\([^#\n]*\)\.\h*(?:%.*)?$", r"-->")
_XML = _pattern(r"\A(?:\xef\xbb\xbf)?\s*<(?:\?xml|!DOCTYPE|TS\b)")
_JSON = _pattern(r"\A(?:\xef\xbb\xbf)?\s*[{\[]")
_VERILOG = _pattern(r"^\h*(?:macro)?module\b", r"^\h*(?:end)?module\b",
                    r"^\h*`(?:define|timescale|include|ifn?def)\b", r"\balways\h*@",
                    r"^\h*(?:assign|wire|reg|input|output|parameter)\b", r"^\h*initial\h+begin\b")
_COQ = _pattern(r"\b(?:Proof|Qed|Defined|Admitted)\.", r"^\h*(?:From\h+\S+\h+)?Require\b",
                r"^\h*(?:Theorem|Lemma|" r"Definition|Fixpoint|Inductive|Module|Section|Notation)\h+\w")
_V_LANGUAGE = _pattern(r"^\h*(?:pub\h+)?fn\h+[^\s(]*\(.*\{\h*$", r"^import\h+\w+\h*$")
_FORTH = _pattern(r"^: \S", r"^\\ ", r"^(?:also|previous|new-device) ")
_GLSL = _pattern(r"^\h*#version\h+\d", r"^\h*(?:uniform|varying|attribute|precision|in|out|layout)\b.*;",
                 r"\bvoid\h+main\h*\(", r"\bgl_\w+", r"\b(?:vec[234]|mat[34]|sampler2D)\h+\w")
_RENDERSCRIPT = _pattern(r"^\h*#pragma\h+(?:rs|version)\b")
_VISUAL_BASIC = _pattern(r"^\h*Attribute\h+VB_\w+\h*=", r"^VERSION\h+\d\.\d+(?:\h+CLASS)?\h*$",
                         r"^Option\h+Explicit\b",
                         r"^\h*(?:Public|Private)\h+(?:Sub|Function|Property|Declare|Const|Type)\b")
_TEX_CLASS = _pattern(r"^\h*\\(?:NeedsTeXFormat|ProvidesClass|LoadClass|RequirePackage|newcommand|def|input)\b",
                      r"^\h*%")
_SMALLTALK_CHUNKS = _pattern(r"![\w\s]+methodsFor: ", r"^\h*!\w+ (?:class )?methodsFor:")
_SMALLTALK = _pattern(r"!\w[\w\s]*methodsFor:", r"\b\w+\h*:=", r"^\w+\h+(?:class\h+)?extend\h*\[", r"\bsubclass:\h*#",
                      r"^\w+\h+>>\h+\w", r"\bif(?:True|False|Nil):", r"\A\s*\"", r"^(?:Class|Trait|Extension)\h*\{")
_STRING_TEMPLATE = _pattern(r"\A\s*(?:group|delimiters|import)\b.*", r"^\w+\(.*\)\h*::=", r"<if\(", r"\$\w+[($:;]",
                            r"<[\w.]+(?:\([\w, ]*\))?:\w+")
_ERLANG = _pattern(r"^\h*%", r"^-(?:module|export|mode)\b", r"^main\(.*\)\h*->", r"^\{\h*application\h*,")
_EUPHORIA = _pattern(r"^\h*(?:include|namespace)\h+\S+\.e\b",
                     r"^\h*(?:global\h+)?(?:procedure|atom|sequence|integer)\h+" r"\w+",
                     r"^\h*end\h+(?:procedure|function|if|for)\b")
_COMMON_LISP = _pattern(r"^\h*\((?:defun|defmacro|in-package|defpackage|defclass|defvar|defparameter|defsystem|"
                        r"asdf:defsystem|eval-when|declaim|uiop:\S+)\b", r"^;;;;?\h.*-\*-.*lisp")
_OPENCL = _pattern(r"\b__(?:kernel|global|local)\b", r"^\h*(?:kernel|typedef|#define|#include|#pragma)\b", r"/\*",
                   r"^//")
_COOL = _pattern(r"^\h*class\h+\w+", r"^--")
_NEWLISP = _pattern(r"^\h*\(define\h*\(", r"^#!.*newlisp")
_PUPPET = _pattern(r"^\h*\w+\h+=>\h", r"^\h*(?:class|define|node)\h+[\w:'\"]+.*[{(]\h*$",
                   r"^\h*(?:file|package|service|" r"exec|user|include)\h*[\{ ]")
_PASCAL = _pattern(r"(?i)^\h*(?:unit|program|library|interface|implementation|uses|procedure|function|const|type)\b",
                   r"(?i)^\h*end[.;]", r"(?i)\{\$\w+", r"\A\s*(?:\(\*|\{)")
_PHP = _pattern(r"<\?(?:php|=)?")
_HACK = _pattern(r"<\?hh\b")
_ASSEMBLY = _pattern(r"(?i)^\h+(?:mov[a-z]?|push|call|jmp|ldr|str|add|sub|lea|cmp|ret)\b", r"(?i)^\h*(?:\w+:?\h+)?"
                     r"(?:d[bwdq]|equ|resb|org|\.macro|%macro|\.globl?|\.section|\.text|\.set|\.byte|\.word|\.long)\b",
                     r"^;")
_HTML = _pattern(r"(?i)\A\s*<(?:!--|!doctype html|html|div|p|table|ul|h\d|a|span|form|script)\b")
_SQL = _pattern(r"(?i)^\h*(?:create|insert|alter|drop|select|update|set)\h+\w")
_NOT_C_INC = _pattern(r"^\h*<", r"^inherit\b", r"^\h*#(?:declare|local)\b",
                      r"^\h*(?:stock|native|forward|methodmap)\b")
_C_LIKE = _pattern(r"^\h*#\h*(?:include|define|if|ifdef|ifndef|pragma)\b", r"^\h*/\*", r"^\h*//")
_REBOL = _pattern(r"(?i)\bREBOL\b")
_REZ = _pattern(r"#include\h+[\"<](?:Types\.r|Carbon/Carbon\.r)", r"^(?:resource|data|type)\h+'\w{4}'")
_MAKE_DEPENDENCIES = _pattern(r"^[^\s#:][^:=\n]*\.o\h*:", r"\\\h*$", r"^[\w./%-]+\h*:\h")
_D_LANGUAGE = _pattern(r"^\h*(?:module|import)\h+[\w.:, ]+;", r"^\h*unittest\b", r"\bvoid\h+main\h*\(",
                       r"^#pragma D ", r"^\h*(?:class|struct|enum|alias)\h+\w+")
_SML = _pattern(r"=>\h", r"\bcase\h[^|]{1,200}?\hof\b", r"^\h*(?:structure|signature|functor|fun)\h+\w",
                r"\bval\h+\w+\h*=\h*fn\b")
_OCAML = _pattern(r"^\h*let\h+(?:rec\h+)?\w", r"\bmatch\h[^|]{1,200}?\hwith\b", r"^\h*module\h+\w+\h*[:=]",
                  r"^\h*open\h+[A-Z]", r"->")
_GNUPLOT = _pattern(r"^\h*s?plot\b", r"^\h*set\h+\w")
_SUPERCOLLIDER = _pattern(r"\^(?:this|super)\.", r"^\h*~\w+\h*=", r"\bSynthDef\b", r"\{\h*\|", r"^\h*\*\w+\h*\{")
_SCHEME = _pattern(
                   r"^\h*\((?:define|library|define-library|import|module|use-modules|begin|let|lambda|display)\b",
                   r"^;")
_TREE_SITTER = _pattern(r"[)\]\"]\h*@[a-z][\w.]*\)*\h*$", r"\(#[\w-]+[!?]")
_SALT = _pattern(r"^\h*\{[%#]", r"^[\w./-]+:\h*$", r"^\h+- \w")
_UNITY_SHADER = _pattern(r"^\h*Shader\h+\"", r"^\h*(?:SubShader|Properties)\b", r"\bCGPROGRAM\b")
_RPM = _pattern(r"^(?:Name|Version|Release|Summary|License)\h*:", r"^%\w+")
_RUBY_SPEC = _pattern(r"^\h*(?:require|describe|RSpec|context|Gem::Specification|Pod::Spec)\b",
                      r"\bdo\h*(?:\|.*\|)?\h*$")
_PYINSTALLER = _pattern(r"\bAnalysis\h*\(", r"^\h*(?:import|from)\h+\w", r"\bPYZ\h*\(")
_RENPY = _pattern(r"^\h*(?:label|init|define|screen|image)\h+\w*.*:?\h*$", r"^\h*\w+\h+\"")
_PYTHON = _pattern(r"^(?:import|from|class|def)\h")
_SOLIDITY = _pattern(r"\bpragma\h+solidity\b", r"^\h*(?:abstract\h+)?(?:contract|library|interface)\h+\w+",
                     r"^\h*//")
_TEST_PERL = _pattern(r"\bTest::(?:More|Simple)\b")
_TURING = _pattern(r"^\h*%\h", r"^\h*var\h+\w+\h*:", r"^\h*(?:terra|local)\h")
_XPM = _pattern(r"^\h*/\* XPM \*/")
_AL_LANGUAGE = _pattern(r"(?i)^\h*(?:codeunit|page|table|report|enum)\h+\d+")
_TAGLIB = _pattern(r"<%[@!=\s]?\h*(?:taglib|tag|include|attribute|variable)\h", r"<(?:jsp|c|fmt):\w+")
_JAVASCRIPT = _pattern(r"\b(?:function|var|const|let)\b", r"=>", r"^\h*//")
_GOSU = _pattern(r"^\h*uses\h+(?:java|gw)\.", r"^\[indent=\d")
_CAKE_C_SHARP = _pattern(r"^\h*#(?:tool|addin|load)\b", r"\bTask\h*\(", r"^\h*var\h+\w+\h*=", r"^//")
_NOTEBOOK = _pattern(r"\A\s*\(\*", r"Notebook\[")
_REASON = _pattern(r"^\h*(?:module|open|include|type)\h+\w", r"^\h*let\h+\w+\h*=.*=>")
_MPS = _pattern(r"\A\s*<")
_LEX_LISP = _pattern(r"\((?:defun|defmacro|in-package|setq)\b")
_FILEBENCH = _pattern(r"\bflowop\b")
_FPRIME = _pattern(r"^\h*(?:active|passive|queued)\h+component\h", r"^\h*(?:module|topology|port)\h+\w+\h*\{")
_APPLICATION = _pattern(r"^\{\h*'?application'?\h*,")

# One of them is in every text that the pattern finds; a C header has few, and a search for bytes is much faster.
_C_PLUS_PLUS_WORDS = (b"template", b"namespace", b"using ", b"public", b"private", b"protected", b"class", b"std::",
                      b"explicit", b"constexpr", b"virtual", b"operator", b"_cast", b"noexcept", b"delete", b"default",
                      b'"C++"')


def _either_c(head: bytes) -> str | None:
    if (b"@" in head or b"import" in head) and _OBJECTIVE_C.search(head):
        return None
    if _C_PLUS_PLUS_HEADER.search(head):
        return "c++"
    return "c++" if any(word in head for word in _C_PLUS_PLUS_WORDS) and _C_PLUS_PLUS.search(head) else "c"


def _cs(head: bytes) -> str:
    return "smalltalk" if b"methodsFor:" in head and _SMALLTALK_CHUNKS.search(head) else "c#"



def _inc(head: bytes) -> str | None:
    for pattern, language in ((_PHP, "php"), (_HTML, "html"), (_NOT_C_INC, None), (_SQL, "sql")):
        if pattern.match(head.lstrip()) if language in ("php", "html") else pattern.search(head):
            return language
    if _C_LIKE.search(head):
        return "c++"
    return "pascal" if _PASCAL.search(head) else "assembly" if _ASSEMBLY.search(head) else None


def _pl(head: bytes) -> str | None:
    if _RAKU.search(head):
        return None
    return "prolog" if _PROLOG.search(head) and not _PERL.search(head) else "perl"


def _ml(head: bytes) -> str | None:
    ocaml, sml = len(_OCAML.findall(head)), len(_SML.findall(head))
    return "standard ml" if sml > ocaml else "ocaml"


RULES: dict[str, tuple[str | None, Choice]] = {
    ".al": ("perl", _first((_AL_LANGUAGE, None), (_PERL, "perl"), otherwise=None)),
    ".app": (None, _first((_APPLICATION, "erlang"), otherwise=None)),
    ".bas": ("visual basic", _first((_VISUAL_BASIC, "visual basic"), otherwise=None)),
    ".cake": ("c#", _first((_CAKE_C_SHARP, "c#"), otherwise="coffeescript")),
    ".cl": ("common lisp", _first((_COMMON_LISP, "common lisp"), (_OPENCL, None), (_COOL, None),
                                  otherwise="common lisp")),
    ".cls": ("tex", _first((_VISUAL_BASIC, "visual basic"), (_TEX_CLASS, "tex"), otherwise=None)),
    ".cs": ("c#", _cs),
    ".d": (None, _first((_D_LANGUAGE, None), (_MAKE_DEPENDENCIES, "makefile"), otherwise=None)),
    ".es": ("javascript", _first((_ERLANG, "erlang"), otherwise="javascript")),
    ".ex": ("elixir", _first((_EUPHORIA, None), otherwise="elixir")),
    ".f": ("fortran", _first((_FORTH, None), (_FILEBENCH, None), otherwise="fortran")),
    ".for": ("fortran", _first((_FORTH, None), otherwise="fortran")),
    ".fpp": ("fortran", _first((_FPRIME, None), otherwise="fortran")),
    ".frag": ("glsl", _first((_GLSL, "glsl"), (_JAVASCRIPT, "javascript"), otherwise="glsl")),
    ".frm": ("visual basic", _first((_VISUAL_BASIC, "visual basic"), otherwise=None)),
    ".fs": ("f#", _first((_GLSL, "glsl"), (_RENDERSCRIPT, None), (_FORTH, None), otherwise="f#")),
    ".gs": ("javascript", _first((_GOSU, None), (_GLSL, "glsl"), otherwise="javascript")),
    ".h": ("c", _either_c),
    ".h.in": ("c", _either_c),
    ".hh": ("c++", _first((_HACK, None), otherwise="c++")),
    ".ice": (None, _first((_JSON, "json"), otherwise=None)),
    ".inc": (None, _inc),
    ".l": (None, _first((_LEX_LISP, "common lisp"), otherwise=None)),
    ".lisp": ("common lisp", _first((_COMMON_LISP, "common lisp"), (_NEWLISP, None), otherwise="common lisp")),
    ".lsp": ("common lisp", _first((_COMMON_LISP, "common lisp"), (_NEWLISP, None), otherwise="common lisp")),
    ".m": ("matlab", _first((_OBJECTIVE_C, None), (_NOT_MATLAB, None), (_MATLAB, "matlab"),
                            (_MATHEMATICA, "mathematica"), otherwise="matlab")),
    ".ml": ("ocaml", _ml),
    ".mpl": ("maple", _first((_MPS, None), otherwise="maple")),
    ".nas": ("assembly", _first((_ASSEMBLY, "assembly"), otherwise=None)),
    ".nb": ("mathematica", _first((_NOTEBOOK, "mathematica"), otherwise=None)),
    ".php": ("php", _first((_HACK, None), otherwise="php")),
    ".pl": ("perl", _pl),
    ".plt": (None, _first((_GNUPLOT, None), (_PROLOG, "prolog"), otherwise=None)),
    ".pluginspec": ("ruby", _first((_XML, None), otherwise="ruby")),
    ".pm": ("perl", _first((_XPM, None), (_RAKU, None), (_PERL, "perl"), (_RAKU_CLASS, None), otherwise="perl")),
    ".pp": (None, _first((_PASCAL, "pascal"), (_PUPPET, None), otherwise=None)),
    ".prc": ("sql", _first((_SQL, "sql"), otherwise=None)),
    ".pro": (None, _first((_PROLOG, "prolog"), otherwise=None)),
    ".r": ("r", _first((_REBOL, None), (_REZ, None), otherwise="r")),
    ".re": (None, _first((_REASON, None), (_C_PLUS_PLUS, "c++"), (_C_LIKE, "c++"), otherwise=None)),
    ".rpy": (None, _first((_PYTHON, "python"), (_RENPY, None), otherwise=None)),
    ".rs": ("rust", _first((_XML, None), (_RENDERSCRIPT, None), otherwise="rust")),
    ".s": ("assembly", _first((_SMALLTALK_CHUNKS, None), otherwise="assembly")),
    ".asm": ("assembly", _first(otherwise="assembly")),
    ".sc": ("scala", _first((_SUPERCOLLIDER, None), otherwise="scala")),
    ".sch": (None, _first((_XML, None), (_SCHEME, "scheme"), otherwise=None)),
    ".scm": ("scheme", _first((_TREE_SITTER, None), otherwise="scheme")),
    ".sh": ("shell", _first(otherwise="shell")),  # the first line may name csh
    ".shader": (None, _first((_UNITY_SHADER, None), (_GLSL, "glsl"), otherwise=None)),
    ".sls": (None, _first((_SALT, None), (_SCHEME, "scheme"), otherwise=None)),
    ".sol": ("solidity", _first((_SOLIDITY, "solidity"), otherwise=None)),
    ".spec": (None, _first((_RPM, None), (_PYINSTALLER, "python"), (_RUBY_SPEC, "ruby"), otherwise=None)),
    ".st": (None, _first((_STRING_TEMPLATE, None), (_SMALLTALK, "smalltalk"), otherwise=None)),
    ".t": ("perl", _first((_RAKU, None), (_TEST_PERL, "perl"), (_TURING, None), (_RAKU_CLASS, None), (_PERL, "perl"),
                         otherwise=None)),
    ".tact": (None, _first((_JSON, "json"), otherwise=None)),
    ".tag": (None, _first((_TAGLIB, "java server pages"), otherwise=None)),
    ".ts": ("typescript", _first((_XML, None), otherwise="typescript")),
    ".tsx": ("typescript", _first((_XML, None), otherwise="typescript")),
    ".v": ("verilog", _first((_COQ, None), (_V_LANGUAGE, None), (_VERILOG, "verilog"), otherwise=None)),
    ".yy": ("yacc", _first((_JSON, "json"), otherwise="yacc")),
}
