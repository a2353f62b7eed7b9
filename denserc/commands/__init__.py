"""The sub-commands of `denserc`, one module each: `parser()` and `main(arguments)`.

These modules import only the standard library at their top, so that --help is quick. What a command does is in
`denserc.tools` and in the library; `denserc.cli` has the list of commands.
"""
