#!/usr/bin/env python3
"""fetch_test.py FETCH_EWT: merges made checkouts and compares with what was worked out by hand."""
import gzip
import os
import subprocess
import sys
import tempfile

# Two predicates, of which the auxiliary stands nearer to the root; a multiword token; a name.
UD = """# sent_id = weblog-made_doc-0001
# text = Ann is seen to run.
1\tAnn\tAnn\tPROPN\tNNP\t_\t3\tnsubj\t_\t_
2-3\tisseen\t_\t_\t_\t_\t_\t_\t_\t_
2\tis\tbe\tAUX\tVBZ\t_\t0\troot\t_\t_
3\tseen\tsee\tVERB\tVBN\t_\t2\tdep\t_\t_
4\tLee\tLee\tPROPN\tNNP\t_\t3\tobj\t_\t_

# sent_id = weblog-made_doc-0002
1\tYes\tyes\tINTJ\tUH\t_\t0\troot\t_\t_

# sent_id = weblog-made_doc-0003
1\tno\tno\tINTJ\tUH\t_\t0\troot\t_\t_
2\t!\t!\tPUNCT\t.\t_\t1\tpunct\t_\t_

"""
ENTITIES = """# sent_id = weblog-made_doc-0001
1\tAnn\tB-PER\t-\tx
2\tis\tO\t-\tx
3\tseen\tB-OTH\t-\tx
4\tLee\tB-PER\t-\tx

# sent_id = weblog-made_doc-0002
1\tYes\tB-O\t-\tx

# sent_id = weblog-made_doc-0003
1\tno\tO\t-\tx
2\t!\tO\t-\tx

"""
# Sentence 0003 has another number of tokens here, so it is left out.
SKELETON = """made 0 0 Ann NNP * - - * (ARG1*
made 0 1 is VBZ * be be.03 (V*) *)
made 0 2 seen VBN * see see.01 * (V*)
made 0 3 Lee NNP * - - (ARG2*) (ARG2(ARGM-LOC*))

made 1 0 Yes UH * - -

made 2 0 no! UH * - -
"""
EXPECTED = """Ann\tPROPN\tNNP\tB-PER\tB-ARG1\tnsubj\t-\tO|B-ARG1
is\tAUX\tVBZ\tO\tI-ARG1\troot\tbe.03\tB-V|I-ARG1
seen\tVERB\tVBN\tO\tB-V\tdep\tsee.01\tO|B-V
Lee\tPROPN\tNNP\tB-PER\tB-ARGM-LOC\tobj\t-\tB-ARG2|B-ARGM-LOC

Yes\tINTJ\tUH\tO\tO\troot\t-\t-

"""


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def main(fetch_ewt):
    with tempfile.TemporaryDirectory() as folder:
        for split in ("train", "dev", "test"):
            write(f"{folder}/ud/en_ewt-ud-{split}.conllu", UD)
            write(f"{folder}/uner/en_ewt-ud-{split}.iob2", ENTITIES)
        write(f"{folder}/pb/data/google/ewt/weblog/00/made_doc.xml.gold_skel", SKELETON)
        command = [sys.executable, fetch_ewt, f"{folder}/out", "--ud", f"{folder}/ud",
                   "--uner", f"{folder}/uner", "--propbank", f"{folder}/pb"]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert said.count("2 sentences, 1 left out") == 3, said
        for split in ("train", "dev", "test"):
            with gzip.open(f"{folder}/out/ewt.{split}.tsv.gz", "rt", encoding="utf-8") as file:
                lines = [line for line in file if not line.startswith("# ")]
            assert "".join(lines) == EXPECTED, "".join(lines)

        write(f"{folder}/uner/en_ewt-ud-dev.iob2", ENTITIES.replace("Lee", "Bo"))
        refused = subprocess.run(command, capture_output=True, text=True)
        assert refused.returncode != 0 and "weblog-made_doc-0001" in refused.stderr, refused.stderr


main(sys.argv[1])
