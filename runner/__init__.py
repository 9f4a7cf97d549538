"""Takes the programs off the pages and runs them: pytest-codeblocks, extended.

pages.py       a page's text becomes its programs, each line knowing the file it came from
supervisor.py  one program in a process tree and a folder of its own, nothing of it left afterwards
inside.py      notes what happens inside the program's Python processes
process.py     starts a supervisor and reads what it reports
judge.py       what counts as a program that did what its page says
rendered.py    compares the built site with what was read: no code block escapes
console.py     what a `console` fence may hold
plugin.py      the pytest hooks: one test item for each program, and the rules for pages
"""
