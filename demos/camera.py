"""The camera demo: frames in, the asked-for task's map out, tasks switched while it runs. The same as `edgemtl demo`.

    python demos/camera.py build/indoor.edgemtl 0 --web                # a page in the browser, on this machine only
    python demos/camera.py build/indoor.edgemtl 0                      # a window; keys switch the task
    python demos/camera.py build/indoor.edgemtl rtsp://192.0.2.7/stream --task depth --record seen.mp4
    python demos/camera.py build/indoor.edgemtl demos/homes.mp4 --cycle 2 -o build/demo

Its code is edgemtl/cli/demo.py and edgemtl/demo. See docs/camera.md.
"""

import sys

from edgemtl.cli.main import main

if __name__ == "__main__":
    sys.argv.insert(1, "demo")
    main()
